//! The config file: TOML, flattened to keys with dots, so that `num.partitions = 3` and `[num] partitions = 3` are the same.

use std::{collections::BTreeMap, path::Path};

/// The keys of a file, with their values as text; lists are joined with commas.
///
/// # Errors
/// It can't be read, or isn't TOML.
pub fn read(path: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    let text =
        std::fs::read_to_string(path).map_err(|error| anyhow::anyhow!("the config file {} can't be read: {error}", path.display()))?;
    parse(&text).map_err(|error| {
        anyhow::anyhow!("the config file {} is not TOML: {error}\n(strings need quotes: log.cleanup.policy = \"compact\")", path.display())
    })
}

fn parse(text: &str) -> Result<BTreeMap<String, String>, toml::de::Error> {
    let mut keys = BTreeMap::new();
    flatten("", toml::from_str(text)?, &mut keys);
    Ok(keys)
}

fn flatten(prefix: &str, table: toml::Table, keys: &mut BTreeMap<String, String>) {
    for (name, value) in table {
        let key = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
        match value {
            toml::Value::Table(inner) => flatten(&key, inner, keys),
            value => {
                keys.insert(key, show(&value));
            }
        }
    }
}

fn show(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Array(values) => values.iter().map(show).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_and_dots_are_the_same() {
        let keys = parse("cores = [0, 2]\nnum.partitions = 3\n\"log.dirs\" = \"x\"\n[group]\nmax.size = 7\n").unwrap();
        let expected = [("cores", "0,2"), ("group.max.size", "7"), ("log.dirs", "x"), ("num.partitions", "3")];
        assert_eq!(keys.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect::<Vec<_>>(), expected);
    }
}
