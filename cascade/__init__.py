"""Ask the weak model, judge its answer, escalate to the strong one."""
