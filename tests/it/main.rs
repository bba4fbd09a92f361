//! The broker from outside, in dialogues. Time is virtual wherever it matters.

mod support;

mod keep_alive;
