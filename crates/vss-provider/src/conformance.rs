//! Placeholder for the suite.
