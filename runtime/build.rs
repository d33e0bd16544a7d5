//! How the programs are linked.

fn main() {
    // At a fixed address. A position-independent program's tables of pointers (250 KB, most of them
    // regular expressions' that oci-spec brings along) are written at its start, which makes them private
    // memory of each monitor; like this they stay pages of the file, shared by all and mostly never read.
    println!("cargo::rustc-link-arg-bins=-no-pie");
    println!("cargo::rerun-if-changed=build.rs");
}
