use super::*;
use crate::disk::{
    BLOCK, read_whole,
    sim::{Executor, SimDisk},
    write_whole,
};
use rand::{Rng, SeedableRng, rngs::SmallRng};

fn run(seed: u64, program: impl AsyncFnOnce(SimDisk) + 'static) {
    let disk = SimDisk::new(seed, &[Path::new("/d")]);
    Executor::new(&disk, seed).block_on(async move { program(disk).await });
}

async fn state<D: Disk>(disk: &D) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in disk.list(Path::new("/d")).await.expect("lists") {
        if !entry.is_dir {
            let bytes = read_whole(disk, &Path::new("/d").join(&entry.name)).await.expect("reads");
            assert_eq!(bytes.len() as u64, entry.bytes, "{}", entry.name);
            files.push((entry.name, bytes));
        }
    }
    files
}

/// One random change of a few files. Those that fail must fail alike.
async fn change<D: Disk>(disk: &D, random: &mut SmallRng) -> Result<(), io::ErrorKind> {
    let mut path = || Path::new("/d").join(format!("file-{}", random.random_range(0..5)));
    let (path, other) = (path(), path());
    let (what, at, length) = (random.random_range(0..8), random.random_range(0..6) * BLOCK, random.random_range(1..4) * BLOCK);
    let fill = vec![random.random::<u8>(); length as usize];
    let done = match what {
        0..=2 => {
            async {
                let file = disk.open(&path, Open::Create).await?;
                let room = disk.size(&file).await?.next_multiple_of(BLOCK).max(at + length);
                disk.allocate(&file, room).await?;
                disk.write(&file, at, vec![Chunk::padded(&fill)]).await
            }
            .await
        }
        3 => write_whole(disk, &path, &fill[..length as usize - 7]).await,
        4 => {
            async {
                let file = disk.open(&path, Open::Existing).await?;
                disk.truncate(&file, at + 100).await
            }
            .await
        }
        5 => disk.rename(&path, &other).await,
        _ => disk.remove(&path).await,
    };
    done.map_err(|error| error.kind())
}

#[test]
fn it_behaves_as_the_disk_below_would_and_leaves_that_as_it_was() {
    for seed in 0..200 {
        run(seed, async move |disk| {
            let mut random = SmallRng::seed_from_u64(seed);
            for _ in 0..20 {
                let _ = change(&disk, &mut random).await;
            }
            let before = state(&disk).await;
            let directory = tempfile::tempdir().expect("a directory");
            let overlay = Overlay::new(disk.clone(), directory.path()).expect("an overlay");
            let mut same = random.clone();
            let mut shown = Vec::new();
            for _ in 0..60 {
                shown.push((change(&overlay, &mut random).await, state(&overlay).await));
            }
            assert_eq!(state(&disk).await, before, "seed {seed}: the disk below has changed");
            for (step, (result, files)) in shown.into_iter().enumerate() {
                assert_eq!(change(&disk, &mut same).await, result, "seed {seed}, step {step}");
                assert_eq!(state(&disk).await, files, "seed {seed}, step {step}");
            }
        });
    }
}

#[test]
fn what_is_removed_gives_its_space_back() {
    run(1, async |disk| {
        let directory = tempfile::tempdir().expect("a directory");
        let overlay = Overlay::new(disk, directory.path()).expect("an overlay");
        let path = Path::new("/d/new");
        write_whole(&overlay, path, &[7; 3 * BLOCK as usize]).await.expect("writes");
        assert_eq!(overlay.kept_bytes(), (3 * BLOCK, 3 * BLOCK));
        overlay.remove(path).await.expect("removes");
        assert_eq!(overlay.kept_bytes(), (3 * BLOCK, 0));
    });
}

#[test]
fn a_directory_that_was_made_here_holds_only_what_was_made_here() {
    run(2, async |disk| {
        let directory = tempfile::tempdir().expect("a directory");
        let overlay = Overlay::new(disk.clone(), directory.path()).expect("an overlay");
        let new = Path::new("/d/cleaning");
        overlay.create_dir(new).await.expect("creates");
        write_whole(&overlay, &new.join("a"), b"1").await.expect("writes");
        assert!(overlay.remove_dir(new).await.is_err(), "it is not empty");
        overlay.rename(&new.join("a"), Path::new("/d/a")).await.expect("renames");
        overlay.remove_dir(new).await.expect("removes");
        assert_eq!(overlay.list(new).await.unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(state(&overlay).await, [("a".to_owned(), b"1".to_vec())]);
        assert_eq!(state(&disk).await, []);
    });
}
