//! Memory that the allocator keeps, given back to the kernel.
//!
//! A process that once held much (policies while they were checked, a large answer) keeps the pages: glibc returns only the end of an
//! arena by itself. What is idle should cost little (O8), so processes give back what is free from time to time.
//!
//! Not here:   when (the platform decides).

/// Gives free pages of all arenas back. Takes about a millisecond; on other C libraries than glibc it does nothing.
pub fn give_back() {
    crate::sys::trim_heap();
}
