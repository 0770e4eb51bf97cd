//! What the attacker program itself cannot do without: system calls that it has in a service's place whatever that service's own list says.
//!
//! An attacker inside a service has that service's list, and what the list lacks is denied to it like everything else. But a program has
//! to be there first: be loaded, listen, answer, start a thread and a process, and wait for it. Found by denying one call at a time under
//! `strace`, as a test of the copy does with `palisade breach`: without any one of these there is no attack at all. What every start has
//! (`sandbox::Calls`) is not repeated here.
//!
//! Guarantees: L8 what a service's list denies is denied to whoever took the service over, but for what stands here.

/// System calls by name. Other spellings of the same (architectures, C libraries) stand beside each other.
pub const NEEDS: &[&str] = &[
    // To be loaded and to look at files.
    "openat",
    "newfstatat",
    "fstat",
    "pread64",
    "poll",
    "ppoll",
    // To listen, to be called and to call.
    "socket",
    "setsockopt",
    "bind",
    "listen",
    "accept4",
    "connect",
    "recvfrom",
    "sendto",
    // To have a thread for each connection, and a process for what may be killed for it.
    "clone",
    "wait4",
];

#[cfg(test)]
mod tests {
    use super::*;

    // L8: few, and none that an attack is made of.
    #[test]
    fn what_the_attacker_needs_itself_is_no_attack() {
        assert!(NEEDS.len() <= 16, "{}", NEEDS.len());
        for attack in ["ptrace", "unshare", "mount", "getdents64", "ioctl", "kill", "unlinkat", "mknodat", "prctl", "readlink"] {
            assert!(!NEEDS.contains(&attack), "{attack}");
        }
    }
}
