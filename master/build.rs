//! Tells cargo that a release holds the built dashboard: without this, files that appear later would not be noticed. Other
//! builds read the files when they are asked for.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("PROFILE").is_ok_and(|profile| profile == "release") {
        println!("cargo::rerun-if-changed=dashboard/dist");
    }
}
