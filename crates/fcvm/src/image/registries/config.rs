//! What the files say, put together.

use std::{collections::BTreeMap, path::Path};

use serde::Deserialize;

use super::{
    Registries, RegistriesError,
    files::ConfigFile,
    lookup::{Mirror, PullFrom, Registry},
};
use crate::image::{
    ShortNames,
    name::{ImageName, NameError, check_registry},
};

/// A file, in the form of version 2. Keys that are not known are another program's.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Config {
    unqualified_search_registries: Option<Vec<String>>,
    #[serde(default)]
    registry: Vec<RegistryTable>,
    #[serde(default)]
    aliases: BTreeMap<String, String>,
    /// What version 1 has everything in.
    registries: Option<toml::Table>,
}

/// A `[[registry]]`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct RegistryTable {
    #[serde(default)]
    prefix: String,
    #[serde(default)]
    location: String,
    insecure: Option<bool>,
    #[serde(default)]
    blocked: bool,
    #[serde(default)]
    mirror_by_digest_only: bool,
    #[serde(default)]
    mirror: Vec<MirrorTable>,
}

/// A `[[registry.mirror]]`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct MirrorTable {
    location: String,
    insecure: Option<bool>,
    #[serde(default)]
    pull_from_mirror: PullFrom,
}

/// The configuration of files, of which later ones win: of a registry by its whole table, of
/// an alias by its name, of the registries to be searched by the list.
pub(super) fn merge(files: &[ConfigFile]) -> Result<Registries, RegistriesError> {
    let mut short_names = ShortNames::default();
    let mut registries = BTreeMap::new();
    for ConfigFile { path, text } in files {
        let config: Config = toml::from_str(text)
            .map_err(|source| RegistriesError::Parse { path: path.clone(), source: Box::new(source) })?;
        if config.registries.is_some() {
            return Err(RegistriesError::Version1 { path: path.clone() });
        }
        if let Some(search) = config.unqualified_search_registries {
            short_names.search = search.iter().map(|text| searched(path, text)).collect::<Result<_, _>>()?;
        }
        for (name, target) in config.aliases {
            // An empty one takes back what an earlier file said.
            if target.is_empty() {
                short_names.aliases.remove(&name);
                continue;
            }
            let target = alias(&name, &target).map_err(|source| RegistriesError::Alias {
                path: path.clone(),
                name: name.clone(),
                source,
            })?;
            short_names.aliases.insert(name, target);
        }
        for table in config.registry {
            let registry = registry(path, table)?;
            registries.insert(registry.prefix.clone(), registry);
        }
    }
    Ok(Registries { short_names, registries: registries.into_values().collect() })
}

fn searched(path: &Path, text: &str) -> Result<String, RegistriesError> {
    let registry = text.strip_suffix('/').unwrap_or(text);
    check_registry(registry).map_err(|source| RegistriesError::Search {
        path: path.to_owned(),
        text: text.to_owned(),
        source,
    })?;
    Ok(registry.to_owned())
}

fn alias(name: &str, target: &str) -> Result<ImageName, NameError> {
    let name: ImageName = name.parse()?;
    let target: ImageName = target.parse()?;
    if name.registry().is_some() || name.has_reference() || target.has_reference() {
        return Err(NameError::Alias);
    }
    Ok(target)
}

fn registry(path: &Path, table: RegistryTable) -> Result<Registry, RegistriesError> {
    let location = place(path, &table.location)?;
    let prefix = match (place(path, &table.prefix)?, &location) {
        (Some(prefix), _) => prefix,
        (None, Some(location)) => location.clone(),
        (None, None) => return Err(RegistriesError::Nowhere { path: path.to_owned() }),
    };
    let mirrors = table.mirror.into_iter().map(|mirror| {
        let text = mirror.location;
        let location =
            place(path, &text)?.ok_or_else(|| RegistriesError::Prefix { path: path.to_owned(), text })?;
        let pull_from =
            if table.mirror_by_digest_only { PullFrom::DigestOnly } else { mirror.pull_from_mirror };
        Ok(Mirror { location, insecure: mirror.insecure, pull_from })
    });
    Ok(Registry {
        prefix,
        location,
        insecure: table.insecure,
        blocked: table.blocked,
        mirrors: mirrors.collect::<Result<_, _>>()?,
        file: path.to_owned(),
    })
}

/// A prefix or location, where it is not empty.
fn place(path: &Path, text: &str) -> Result<Option<String>, RegistriesError> {
    let trimmed = text.trim_end_matches('/');
    if trimmed.contains("://") || trimmed.contains(char::is_whitespace) || trimmed.starts_with('/') {
        return Err(RegistriesError::Prefix { path: path.to_owned(), text: text.to_owned() });
    }
    Ok((!trimmed.is_empty()).then(|| trimmed.to_owned()))
}
