//! Links the monitor at a fixed address.

fn main() {
    // A position-independent program is relocated when it starts, which makes a quarter of a mebibyte of
    // otherwise shared, read-only pages private to each process. There is one monitor for each container; it is
    // this crate's only program of which there are many. Its heap, stack and libraries stay at random addresses.
    println!("cargo::rustc-link-arg-bin=wherry-monitor=-no-pie");
    println!("cargo::rerun-if-changed=build.rs");
}
