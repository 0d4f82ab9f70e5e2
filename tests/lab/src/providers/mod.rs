//! What the tests of providers share: the machine under them, and the phases of a set, called as the service calls them.
//!
//! Which file systems a provider is tried on, and how they lie on one another, is its own tests' business. What goes wrong is
//! the test's failure: everything here panics.

mod machine;
mod phases;

pub use machine::{after_power_cut, assert_clean, make, missing, run, strays, wait_until_let_go};
pub use phases::{begin, begin_with, create, create_with, cut, finish, held, request, shown, try_held, volume};
