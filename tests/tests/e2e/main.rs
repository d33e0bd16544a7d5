//! The end-to-end tests, one module a topic. See `wherry_tests` for how they run.

mod run;
