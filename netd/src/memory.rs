//! One heap for all threads, which gives back what it does not need.
//!
//! glibc makes a heap of its own for each thread that meets another one in malloc, and lets a block that was once large
//! stay in its heap ever after. netd has many threads that live short (one per connection, one per namespace that is entered) and
//! some messages that are large (all networks with all endpoints): what they leave would be a multiple of what is kept. The
//! thread that answers questions hardly notices the others: small blocks come from a cache that each thread has.
//!
//! Unsafe, because mallopt and malloc_trim have no safe wrapper.
#![allow(unsafe_code)]

/// Returns what is free to the system. To be called after what was large; takes less than a millisecond.
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim may be called at any time.
    unsafe {
        libc::malloc_trim(0)
    };
}

/// To be called before there is a second thread.
pub(crate) fn save() {
    // Another allocator (musl's) needs no advice.
    #[cfg(target_env = "gnu")]
    for (parameter, value) in [
        (libc::M_ARENA_MAX, 1),
        // Said once, these stay: else glibc raises them with each large block that is freed.
        (libc::M_MMAP_THRESHOLD, 64 << 10),
        (libc::M_TRIM_THRESHOLD, 64 << 10),
        (libc::M_TOP_PAD, 16 << 10),
    ] {
        // SAFETY: mallopt may be called at any time; no other thread calls malloc meanwhile. What it refuses is a loss of memory, and
        // nothing else.
        unsafe { libc::mallopt(parameter, value) };
    }
}
