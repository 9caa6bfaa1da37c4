"""Update rules, learning-rate schedules and the state that a step carries on."""
