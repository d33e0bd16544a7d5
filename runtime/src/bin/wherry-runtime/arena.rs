//! Memory for one command: handed out from front to back, and given back only if it was the last that was handed out.
//!
//! A command lives for milliseconds and allocates some hundred kilobytes in small pieces. An allocator that keeps
//! lists of them, and asks the kernel for memory and returns it, takes a tenth of that time. What does not fit here any
//! more (a command that runs for long, a large file) is the system allocator's.

#![allow(unsafe_code)] // an allocator

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The most bytes that are handed out from here. Pages that are never used are never made.
const SIZE: usize = 1 << 20;

/// The largest alignment that is possible here.
const ALIGN: usize = 4096;

/// The memory.
#[repr(C, align(4096))]
pub(crate) struct Arena {
    bytes: UnsafeCell<[u8; SIZE]>,
    /// So many bytes, from the front, are handed out or lost.
    used: AtomicUsize,
}

// SAFETY: a byte belongs to whoever has moved `used` beyond it; that is an atomic step.
unsafe impl Sync for Arena {}

impl Arena {
    pub(crate) const fn new() -> Arena {
        Arena { bytes: UnsafeCell::new([0; SIZE]), used: AtomicUsize::new(0) }
    }

    /// Where in the arena a pointer points to.
    fn offset_of(&self, pointer: *mut u8) -> Option<usize> {
        pointer.addr().checked_sub(self.bytes.get().addr()).filter(|offset| *offset < SIZE)
    }

    /// Moves the end of what is handed out, if it is at `from`.
    fn move_end(&self, from: usize, to: usize) -> bool {
        to <= SIZE && self.used.compare_exchange(from, to, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}

// SAFETY: a piece is inside the arena, aligned as asked for (the arena itself is to ALIGN), and overlaps with no other
// that is in use: `used` only ever goes back over the piece that ends there, when its owner gives it back.
unsafe impl GlobalAlloc for Arena {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        loop {
            let used = self.used.load(Ordering::Acquire);
            let start = used.next_multiple_of(layout.align());
            let end = start.saturating_add(layout.size());
            if end > SIZE || layout.align() > ALIGN {
                // SAFETY: the caller's promise about the layout.
                return unsafe { System.alloc(layout) };
            }
            if self.move_end(used, end) {
                // SAFETY: `start` is inside the arena.
                return unsafe { self.bytes.get().cast::<u8>().add(start) };
            }
        }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        match self.offset_of(pointer) {
            Some(start) => {
                self.move_end(start + layout.size(), start);
            }
            // SAFETY: it is not from here, so it is the system's; the rest is the caller's promise.
            None => unsafe { System.dealloc(pointer, layout) },
        }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let Some(start) = self.offset_of(pointer) else {
            // SAFETY: as above.
            return unsafe { System.realloc(pointer, layout, size) };
        };
        // the last piece grows where it is, as a list does that is being filled
        if self.move_end(start + layout.size(), start.saturating_add(size)) || size <= layout.size() {
            return pointer;
        }
        // SAFETY: the caller promises that `size`, rounded up to the alignment, does not overflow.
        let new = unsafe { self.alloc(Layout::from_size_align_unchecked(size, layout.align())) };
        if !new.is_null() {
            // SAFETY: both are at least as long, and different pieces.
            unsafe { pointer.copy_to_nonoverlapping(new, layout.size()) };
            // SAFETY: the old piece is not used any more.
            unsafe { self.dealloc(pointer, layout) };
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_do_not_overlap_and_are_reused_from_the_end() {
        static ARENA: Arena = Arena::new();
        let layout = |size, align| Layout::from_size_align(size, align).unwrap();
        // SAFETY: all layouts have a size, and match.
        unsafe {
            let a = ARENA.alloc(layout(3, 1));
            let b = ARENA.alloc(layout(64, 64));
            assert_eq!((b.addr() % 64, b.addr() >= a.addr() + 3), (0, true));
            b.write_bytes(7, 64);
            assert_eq!(ARENA.realloc(b, layout(64, 64), 4000), b, "the last one grows in its place");
            let moved = ARENA.realloc(a, layout(3, 1), 10);
            assert!(moved.addr() >= b.addr() + 4000);
            ARENA.dealloc(moved, layout(10, 1));
            assert_eq!(ARENA.alloc(layout(10, 1)), moved, "the last one is reused");
            assert_eq!(*b.add(63), 7);
            let large = ARENA.alloc(layout(SIZE, 1));
            assert!(ARENA.offset_of(large).is_none() && !large.is_null(), "the system's");
            let large = ARENA.realloc(large, layout(SIZE, 1), 2 * SIZE);
            ARENA.dealloc(large, layout(2 * SIZE, 1));
        }
    }
}
