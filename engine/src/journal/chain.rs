//! Which frames of a file belong together: the head's, by their numbers, and then each with the next sequence.

use super::frame::FrameHeader;

/// The frames of one file so far, from its first one on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Chain {
    /// What the next frame must say of itself.
    next: Option<FrameHeader>,
}

impl Chain {
    /// Takes in the frame that lies next in the file; false if it is left over from before: then the chain ends before it.
    pub fn push(&mut self, header: &FrameHeader) -> bool {
        let follows = match self.next {
            None => header.head.0 == 1 && header.is_head(),
            Some(next) => (header.generation, header.sequence, header.head) == (next.generation, next.sequence, next.head),
        };
        // No journal counts that far: a frame of the last number is none.
        let Some(sequence) = header.sequence.checked_add(1).filter(|_| follows) else { return false };
        let in_head = header.head.0 < header.head.1;
        let head = if in_head { (header.head.0 + 1, header.head.1) } else { (0, 0) };
        self.next = Some(FrameHeader { sequence, head, ..*header });
        true
    }

    /// The file's generation, once its head is complete: before that the file doesn't count.
    #[must_use]
    pub fn generation(&self) -> Option<u64> {
        self.next.filter(|next| !next.is_head()).map(|next| next.generation)
    }

    /// True of a frame that was written to this file behind those of the chain: bytes between them are damaged.
    #[must_use]
    pub fn is_passed_by(&self, header: &FrameHeader) -> bool {
        let (Some(generation), Some(next)) = (self.generation(), self.next) else { return false };
        !header.is_head() && header.generation == generation && header.sequence >= next.sequence
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(sequence: u64, head: (u32, u32)) -> FrameHeader {
        FrameHeader { start: 1, salt: 2, core: 0, generation: 3, sequence, length: 0, head }
    }

    #[test]
    fn a_file_counts_from_its_complete_head_on_and_ends_where_the_numbers_do() {
        let mut chain = Chain::default();
        assert!(!chain.push(&frame(6, (0, 0))) && !chain.push(&frame(6, (2, 2))));
        assert!(chain.push(&frame(6, (1, 2))) && chain.generation().is_none());
        assert!(!chain.push(&frame(7, (0, 0))));
        assert!(chain.push(&frame(7, (2, 2))) && chain.generation() == Some(3));
        assert!(!chain.push(&frame(9, (0, 0))) && chain.is_passed_by(&frame(9, (0, 0))));
        assert!(chain.push(&frame(8, (0, 0))) && !chain.is_passed_by(&frame(8, (0, 0))));
        assert!(!chain.push(&FrameHeader { generation: 2, ..frame(9, (0, 0)) }));
    }
}
