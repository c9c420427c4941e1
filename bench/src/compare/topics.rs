//! Topics that a comparison makes and removes. A broker that runs already may have topics of any name: theirs are never used.

use crate::control::{self, Created};
use anyhow::{Result, bail};

/// Partitions where a load does not say how many: as the load commands have it.
const PARTITIONS: i32 = 8;

/// A topic that was made here; dropping it deletes it.
pub struct OwnTopic {
    address: String,
    name: String,
}

impl OwnTopic {
    /// Makes a topic of a new name that ends with a random number.
    ///
    /// # Errors
    /// The broker's, or a topic of that name exists.
    pub fn create(address: &str, what: &str, partitions: i32) -> Result<OwnTopic> {
        let topic = OwnTopic { address: address.to_owned(), name: format!("thalweg-bench-{what}-{:016x}", rand::random::<u64>()) };
        // It is ours from here on, even if the answer gets lost: nobody else thinks of this name.
        match control::create_new(address, &topic.name, partitions)? {
            Created::Now => Ok(topic),
            Created::Before => {
                let name = topic.name.clone();
                std::mem::forget(topic);
                bail!("topic {name} exists at {address}: it is not ours, and is left alone")
            }
        }
    }

    /// Makes one for a load, with the partitions that the load's words ask for.
    ///
    /// # Errors
    /// As [`OwnTopic::create`].
    pub fn for_load(address: &str, what: &str, words: &[String]) -> Result<OwnTopic> {
        OwnTopic::create(address, what, partitions(words))
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The broker was started anew, and listens here now.
    pub fn moved(&mut self, address: &str) {
        address.clone_into(&mut self.address);
    }

    /// Deletes it.
    ///
    /// # Errors
    /// The broker's.
    pub fn delete(self) -> Result<()> {
        // An error is told; trying again on dropping does no harm.
        control::delete(&self.address, &self.name)?;
        std::mem::forget(self);
        Ok(())
    }
}

impl Drop for OwnTopic {
    fn drop(&mut self) {
        let _ = control::delete(&self.address, &self.name);
    }
}

fn partitions(words: &[String]) -> i32 {
    let value = words.iter().position(|word| word == "--partitions").and_then(|at| words.get(at + 1));
    value.and_then(|value| value.parse().ok()).unwrap_or(PARTITIONS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_gets_the_partitions_that_its_load_asks_for() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(partitions(&words("produce --partitions 1000 --records 1")), 1000);
        assert_eq!(partitions(&words("produce --records 1")), PARTITIONS);
    }
}
