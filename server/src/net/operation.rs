//! One operation of the ring that owns what the kernel uses until it has completed, even if its future is dropped.

use io_uring_of_tokio::{cqueue, squeue};
use std::io;
use tokio_uring::{OneshotOutputTransform, UnsubmittedOneshot};

/// Gives back what the operation owned with its result.
pub struct Done<T>(std::marker::PhantomData<T>);

impl<T: 'static> OneshotOutputTransform for Done<T> {
    type Output = (io::Result<usize>, T);
    type StoredData = T;
    fn transform_oneshot_output(self, owned: T, entry: cqueue::Entry) -> Self::Output {
        let result = usize::try_from(entry.result()).map_err(|_| io::Error::from_raw_os_error(-entry.result()));
        (result, owned)
    }
}

/// Runs `entry`, which may point only into the heap that `owned` owns.
pub async fn submit<T: Unpin + 'static>(owned: T, entry: squeue::Entry) -> (io::Result<usize>, T) {
    UnsubmittedOneshot::new(owned, Done(std::marker::PhantomData), entry).submit().await
}
