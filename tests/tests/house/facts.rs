//! Reads the facts that the rules judge: manifests, the lock file, cargo's metadata, sources and ARCHITECTURE.md. Judges
//! nothing.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use cargo_metadata::{MetadataCommand, semver::Version};

/// One package of the lock file or of cargo's metadata.
#[derive(Debug, Clone)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: Version,
    /// Known for packages that this machine builds.
    pub(crate) licence: Option<String>,
}

/// One crate of the workspace and its manifest.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) manifest: toml::Table,
    /// Names of packages, as the registry or the workspace knows them; development and build included.
    pub(crate) dependencies: Vec<Dependency>,
}

#[derive(Debug, Clone)]
pub(crate) struct Dependency {
    pub(crate) package: String,
    pub(crate) optional: bool,
    pub(crate) development: bool,
}

/// One source file, its path relative to the folder asked for.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) text: String,
}

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// The workspace's crates with their declared dependencies.
pub(crate) fn members() -> Vec<Member> {
    let metadata =
        MetadataCommand::new().current_dir(root()).no_deps().other_options(["--locked".into()]).exec().unwrap();
    let member = |package: &cargo_metadata::Package| Member {
        name: package.name.to_string(),
        manifest: fs::read_to_string(&package.manifest_path).unwrap().parse().unwrap(),
        dependencies: package.dependencies.iter().map(dependency).collect(),
    };
    metadata.packages.iter().map(member).collect()
}

fn dependency(dependency: &cargo_metadata::Dependency) -> Dependency {
    Dependency {
        package: dependency.name.clone(),
        optional: dependency.optional,
        development: dependency.kind == cargo_metadata::DependencyKind::Development,
    }
}

/// Every package that goes into a build for this machine, with its licence. Asks for this platform only, so that
/// nothing has to be fetched that the build itself did not need.
pub(crate) fn built_packages() -> Vec<Package> {
    let rustc = Command::new("rustc").arg("-vV").current_dir(root()).output().unwrap();
    let told = String::from_utf8(rustc.stdout).unwrap();
    let host = told.lines().find_map(|line| line.strip_prefix("host: ")).unwrap().to_owned();
    let options = ["--locked".into(), "--filter-platform".into(), host];
    let metadata = MetadataCommand::new().current_dir(root()).other_options(options).exec().unwrap();
    let package = |package: cargo_metadata::Package| Package {
        name: package.name.to_string(),
        version: package.version,
        licence: package.license,
    };
    metadata.packages.into_iter().map(package).collect()
}

/// Every package of the lock file, whatever the platform.
pub(crate) fn locked_packages() -> Vec<Package> {
    let lock: toml::Table = fs::read_to_string(root().join("Cargo.lock")).unwrap().parse().unwrap();
    let package = |package: &toml::Value| Package {
        name: package["name"].as_str().unwrap().into(),
        version: package["version"].as_str().unwrap().parse().unwrap(),
        licence: None,
    };
    lock["package"].as_array().unwrap().iter().map(package).collect()
}

/// The lines of ARCHITECTURE.md's fenced block with this word behind the fence, top to bottom.
pub(crate) fn listed(word: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let fence = format!("```{word}");
    let lines = text.lines().skip_while(|line| *line != fence).skip(1).take_while(|line| *line != "```");
    let lines: Vec<_> = lines.map(str::to_owned).collect();
    assert!(!lines.is_empty(), "ARCHITECTURE.md has no block {fence}");
    lines
}

/// The Rust sources below `folder`, sorted.
pub(crate) fn sources_under(folder: &str) -> Vec<Source> {
    let base = root().join(folder);
    let mut sources = Vec::new();
    collect(&base, &base, &mut sources);
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    sources
}

/// The Rust sources of the whole repository.
pub(crate) fn all_sources() -> Vec<Source> {
    sources_under(".")
}

fn collect(base: &Path, folder: &Path, sources: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy();
        if path.is_dir() {
            if name != "target" && name != "node_modules" && !name.starts_with('.') {
                collect(base, &path, sources);
            }
        } else if name.ends_with(".rs") {
            let path_below = path.strip_prefix(base).unwrap().to_string_lossy().into_owned();
            sources.push(Source { path: path_below, text: fs::read_to_string(&path).unwrap() });
        }
    }
}
