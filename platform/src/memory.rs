//! What becomes of a process's memory: keys never leave it, and what is free goes back.
//!
//! Guarantees: I12 keys are neither dumped, read by other processes nor swapped; O8 what is idle costs little.
//! Not here:   how (`sandbox::memory`).

use std::time::Duration;

use sandbox::memory::Kept;

use crate::process::StartError;

/// When free memory is given back after the start, and how often later.
const LEAN_FIRST: Duration = Duration::from_secs(5);
const LEAN_EVERY: Duration = Duration::from_secs(60);

/// Gives back what the start took, and from then on what a busy minute took: an idle process should cost little.
pub async fn stay_lean() {
    let mut pause = LEAN_FIRST;
    loop {
        tokio::time::sleep(pause).await;
        sandbox::memory::give_back();
        pause = LEAN_EVERY;
    }
}

/// Called before a process holds its first key.
///
/// # Errors
/// `Failed` when the kernel would let others read it.
pub fn keep_keys() -> Result<(), StartError> {
    if let Kept::Part { locked, of } = sandbox::memory::keep_keys().map_err(StartError::failed_by)? {
        tracing::warn!(locked, of, "keys may be written to swap: raise LimitMEMLOCK (ulimit -l), or have no swap");
    }
    Ok(())
}
