//! Tells cargo that the binary holds the built dashboard: without this, files that appear later would not be noticed.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=dashboard/dist");
}
