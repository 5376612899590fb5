"""Sentences in many scripts, for gates that compare two ways to tokenize."""

from __future__ import annotations

#: Sentences by script.
SENTENCES: dict[str, tuple[str, ...]] = {
    "English": ("How do I bake bread at home?", "don't STOP here: a  b\tc\n\nd -- x1_y2, (z) [w] $5 100%"),
    "Latin with accents": (
        "Über die Größe des Universums könnte man lange streiten.",
        "Où est passé le garçon naïf à l'œil bleu ? ¿Mañana, señor? Şişli'de ılık İzmir",
    ),
    "Cyrillic": ("Как приготовить ещё один борщ дома?", "Чому їжак не їсть йогурт?"),
    "Greek": ("Πώς φτιάχνω ψωμί στο σπίτι; Ο ΟΔΥΣΣΕΥΣ έφυγε.", "Ποια είναι η ταχύτητα του φωτός;"),
    "Arabic": ("كيف أخبز الخبز في المنزل؟", "مُحَمَّدٌ كَتَبَ رِسَالَةً طَوِيلَةً إلى أخيه"),
    "Hebrew": ("איך אופים לחם בבית?", "שָׁלוֹם לְכֻלָּם"),
    "Devanagari": ("घर पर रोटी कैसे बनाएं?", "क्या आप मुझे यह समझा सकते हैं।"),
    "Chinese": ("我怎样在家里烤面包？", "請解釋「量子糾纏」是什麼，用100個字。"),
    "Japanese": ("家でパンを焼くにはどうすればいいですか？", "プログラムがうごかないのはなぜ？ｶﾞｷﾞｸﾞ"),
    "Korean": ("집에서 빵을 어떻게 굽나요?", "이 문장을 영어로 번역해 주세요."),
    "Thai": ("ฉันจะอบขนมปังที่บ้านได้อย่างไร", "ช่วยอธิบายเรื่องนี้ให้เข้าใจง่าย"),
    "Vietnamese": ("Làm thế nào để nướng bánh mì ở nhà?", "Hãy giải thích điều này thật đơn giản."),
    "emoji and signs": ("Write a poem 🙂🚀 about 👩‍👩‍👧, please", "∀x∈ℝ: x² ≥ 0 → √4 = 2 — “quoted” …"),
    "special tokens": ("What do [UNK], [PAD] and [CLS] mean?", "[unk] [ UNK ] [PA[UNK]D]"),
}
