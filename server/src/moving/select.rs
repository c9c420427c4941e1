//! Which topics are moved.

use crate::catalog::CONSUMER_OFFSETS;
use anyhow::{Result, bail};
use engine::{kafka::CLUSTER_METADATA, log::CATALOG};
use std::collections::BTreeSet;

/// Topics that belong to a broker itself: the target has its own.
const INTERNAL: [&str; 5] = [CONSUMER_OFFSETS, "__transaction_state", "__share_group_state", CLUSTER_METADATA, CATALOG];

/// True of a topic that is never moved as it is.
pub(super) fn is_internal(topic: &str) -> bool {
    INTERNAL.contains(&topic)
}

/// The topics that are moved: those of `wanted`, or all of `found` if none is named.
pub(super) fn choose<'a>(found: impl Iterator<Item = &'a str>, wanted: &[String], place: &str) -> Result<BTreeSet<String>> {
    let found: BTreeSet<&str> = found.filter(|topic| !is_internal(topic)).collect();
    for topic in wanted {
        if is_internal(topic) {
            bail!("{topic} is the broker's own and is not moved: the target has its own. Offsets of groups are moved with the topics");
        }
        if !found.contains(topic.as_str()) {
            let known: Vec<&str> = found.iter().copied().take(20).collect();
            bail!("there is no topic {topic} in {place}. There are: {}", if known.is_empty() { "none".into() } else { known.join(", ") });
        }
    }
    let chosen: BTreeSet<String> =
        if wanted.is_empty() { found.into_iter().map(str::to_owned).collect() } else { wanted.iter().cloned().collect() };
    if chosen.is_empty() {
        bail!("there is no topic in {place}");
    }
    Ok(chosen)
}
