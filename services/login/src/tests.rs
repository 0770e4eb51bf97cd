//! Tests of `login`, in the process: a real database in a temporary folder, a clock that is ours, and browsers that keep cookies and
//! send the forms that they were given.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod api_key;
mod declared;
mod enrolment;
mod flow;
mod house;
mod possession;
mod refusals;
mod second;
mod sign_in;
mod tokens;

use crate::password::{self, Unfit};

// B12: length, the list and its disguises, the name.
#[test]
fn passwords_that_anybody_tries_first_are_refused() {
    for (password, name, expect) in [
        ("short", "ada", Err(Unfit::Length)),
        ("nine char", "ada", Err(Unfit::Length)),
        (&"x1y2z".repeat(26), "ada", Err(Unfit::Length)),
        ("password123", "ada", Err(Unfit::Common)),
        ("P4ssw0rd!!!", "ada", Err(Unfit::Common)),
        ("2024Welcome!!", "ada", Err(Unfit::Common)),
        ("1234567890", "ada", Err(Unfit::Common)),
        ("qwertyuiop", "ada", Err(Unfit::Common)),
        ("aaaaaaaaaaaaaaaa", "ada", Err(Unfit::Common)),
        ("monkeymonkey", "ada", Err(Unfit::Common)),
        ("Correct Horse Battery Staple", "ada", Err(Unfit::Common)),
        ("lovelace is mine", "Lovelace", Err(Unfit::NameInside)),
        ("l0vel4ce is mine", "Lovelace", Err(Unfit::NameInside)),
        ("brisk otter lantern", "ada", Ok(())),
        ("zw8 und vierzig äpfel", "ada", Ok(())),
        (&"xYz12".repeat(25), "ada", Ok(())),
    ] {
        assert_eq!(password::check(password, name), expect, "{password}");
    }
}
