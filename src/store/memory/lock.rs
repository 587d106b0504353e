//! Locks that are held for moments only.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// A panic elsewhere leaves these maps whole: they are only changed by code that does not panic.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
