//! Well or not.

/// What a core says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CoreHealth {
    /// The broker stops.
    pub is_stopping: bool,
    /// Its journal has failed: nothing is acknowledged any more.
    pub journal_failed: bool,
    /// Partitions that take no appends.
    pub offline: u64,
}

/// What is wrong, a line each; nothing if the broker is well. A core that gave no answer is `None`.
#[must_use]
pub fn complaints(cores: &[Option<CoreHealth>]) -> Vec<String> {
    let mut complaints = Vec::new();
    for (core, health) in cores.iter().enumerate() {
        match health {
            None => complaints.push(format!("core {core} does not answer: it is starting, or stuck")),
            Some(health) => {
                if health.is_stopping {
                    complaints.push(format!("core {core} is stopping"));
                }
                if health.journal_failed {
                    complaints.push(format!("the journal of core {core} has failed"));
                }
                if health.offline > 0 {
                    let why = "a write failed, or it can't be opened; see the log";
                    complaints.push(format!("partitions of core {core} that are offline: {} ({why})", health.offline));
                }
            }
        }
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_is_well_if_every_core_answers_and_every_write_succeeded() {
        let well = CoreHealth::default();
        assert!(complaints(&[Some(well), Some(well)]).is_empty());
        let cases = [
            (None, "core 1 does not answer"),
            (Some(CoreHealth { is_stopping: true, ..well }), "core 1 is stopping"),
            (Some(CoreHealth { journal_failed: true, ..well }), "journal of core 1 has failed"),
            (Some(CoreHealth { offline: 3, ..well }), "partitions of core 1 that are offline: 3"),
        ];
        for (ill, expected) in cases {
            let found = complaints(&[Some(well), ill]);
            assert!(found.len() == 1 && found[0].contains(expected), "{found:?}");
        }
    }
}
