//! What `--repair` leaves as it is, and what works instead: by this `--verify` advises, and `--repair` acts.

use super::{Finding, Fix};
use crate::dump::inputs::{Home, Known};
use engine::{ids::PartitionId, segment::FileKind};

/// Why `--repair` leaves something as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// A broker has the data directory.
    Running,
    /// Thalweg was not stopped cleanly: a part of its data is in the journal only.
    Unclean,
    /// It would move the end of an active segment, on whose length Thalweg's journal counts.
    Active,
    /// A file was named, and not the partition that it belongs to.
    Alone,
    /// A part of it is in a journal that is not here.
    Copied,
}

/// What decides about the findings of a partition.
pub(super) struct Remedy<'a> {
    pub(super) home: &'a Home,
    /// It was stopped cleanly.
    pub(super) is_clean: bool,
    /// It was not, and a part of it is in a journal that is not here.
    pub(super) is_copy: bool,
    /// Its last segment.
    pub(super) active: Option<i64>,
    /// Up to where Thalweg's journal says that batches reach in that, in bytes.
    pub(super) vouched: &'a dyn Fn() -> u64,
}

impl Remedy<'_> {
    /// Has a finding say what works.
    pub(super) fn judge(&self, finding: &mut Finding) {
        let Some(fix) = finding.fix.as_ref().filter(|_| finding.refusal.is_none()) else { return };
        let (refusal, action) = match self.home.mark {
            _ if self.is_copy => (Refusal::Copied, COPIED.to_owned()),
            Some(mark) if moves_the_end(finding, self.active) => {
                let is_killed = !self.is_clean && self.home.holder.is_none();
                (if is_killed { Refusal::Unclean } else { Refusal::Active }, self.instead(fix, mark).to_owned())
            }
            _ if self.home.holder.is_some() => (Refusal::Running, format!("{}; stop the broker first", finding.action)),
            Some(_) if !self.is_clean => {
                let first = "it was not stopped cleanly: first start the broker once, and stop it";
                let action = format!("{}; {first}", finding.action);
                (Refusal::Unclean, if is_of_active(finding, self.active) { format!("{action}. {IF_REFUSED}") } else { action })
            }
            _ => return,
        };
        (finding.refusal, finding.action) = (Some(refusal), action);
    }

    /// What is done about damage at the end of Thalweg's log, or in its active segment.
    fn instead(&self, fix: &Fix, mark: PartitionId) -> &'static str {
        match fix {
            Fix::Remove { from, .. } if self.is_clean && *from >= (self.vouched)() => {
                "start the broker: when it opens the partition it cuts off what lies behind the end that its journal knows"
            }
            // Opening it looks at headers only, but of the catalog, of what a start recovers, and of the last batch.
            Fix::Remove { is_framed: true, to: Some(to), .. }
                if self.is_clean && mark != PartitionId::CATALOG && *to < (self.vouched)() =>
            {
                "restore the segment from a copy; the broker serves the batch as it is, and clients notice (check.crcs); once it has begun \
                 a later segment (segment.ms) and was stopped, --repair takes these bytes out"
            }
            _ => {
                "restore the segment from a copy; or start the broker: if it serves what lies around this, have it begin a later segment \
                 (segment.ms), stop it, and --repair takes out these bytes only. If it can't open the partition, --accept-loss goes on \
                 with what lies before the damage, and keeps the rest beside"
            }
        }
    }
}

/// What works where a start comes to the damage.
const IF_REFUSED: &str = "If it can't open the partition, restore the segment from a copy, or start with --accept-loss, which goes on with \
                          what lies before the damage";

/// What works where the journal is not here: a start of this copy is refused, or has its directory removed.
pub(super) const COPIED: &str = "restore the segment from another copy, or verify it beside its journal; without thalweg.partition in its \
                                 directory --repair takes it for a Kafka's, and puts it right";

/// Of a file that was named alone `--repair` does nothing.
pub(super) fn alone(mut finding: Finding) -> Finding {
    if finding.fix.is_some() {
        finding.refusal = Some(Refusal::Alone);
        finding.action.push_str("; name the partition's directory for that");
    }
    finding
}

/// True of what would make the active segment shorter, or follows from its being so. A journal's line says where the batches of
/// that segment end, and a start looks for one there.
fn moves_the_end(finding: &Finding, active: Option<i64>) -> bool {
    match (&finding.fix, Known::of(&finding.file)) {
        (Some(Fix::Remove { .. }), _) => is_of_active(finding, active),
        // One that is damaged itself has no offset.
        (Some(Fix::Aside), Some(Known::Segment(offset, FileKind::Snapshot))) => {
            finding.offset.is_some() && active.is_some_and(|active| offset > active)
        }
        _ => false,
    }
}

fn is_of_active(finding: &Finding, active: Option<i64>) -> bool {
    matches!(Known::of(&finding.file), Some(Known::Segment(base_offset, FileKind::Log)) if Some(base_offset) == active)
}
