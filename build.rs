//! Rebuilds when a migration is added: they are embedded in the binary, and the compiler watches only those it knows.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
