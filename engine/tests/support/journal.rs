//! A journal as tests need it, written by the broker's own code on a simulated disk.

use engine::{
    disk::sim::{Executor, SimDisk},
    journal::{
        FILE_BYTES_MIN, Item, JournalPosition, JournalWriter, Line, Superblock, Which, file_path, prepare_file, superblock_path,
        write_first_head,
    },
};
use std::{collections::BTreeMap, path::PathBuf};

/// The files of one core's journal and the superblock, by name: a head with these lines and items, and a frame for each of `frames`.
pub fn written(core: usize, lines: &[Line], head: Vec<Item>, frames: Vec<Vec<Item>>, clean: bool) -> BTreeMap<String, Vec<u8>> {
    let directory = PathBuf::from("/journal");
    let disk = SimDisk::new(5, &[&directory]);
    let position = JournalPosition {
        core,
        start: 4,
        salt: 0xabcd,
        generation: 1,
        current: Which::A,
        next_sequence: 1,
        offset: 0,
        file_bytes: FILE_BYTES_MIN,
    };
    let paths = [Which::A, Which::B].map(|which| file_path(&directory, core, which));
    let (write, to, prepared, lines) = (disk.clone(), directory.clone(), paths.clone(), lines.to_vec());
    Executor::new(&disk, 5).block_on(async move {
        for path in &prepared {
            prepare_file(&write, path, FILE_BYTES_MIN).await.expect("prepared");
        }
        let position = write_first_head(&write, &to, position, &lines, &head).await.expect("written");
        let mut writer = JournalWriter::open(write.clone(), &to, position).await.expect("opened");
        for items in frames {
            writer.frame(&items).await.expect("written");
        }
        let block = Superblock { sequence: 2, start: 4, salt: 0xabcd, journals: 1, epoch_floor: 6, clean };
        block.write(&write, &to).await.expect("written");
    });
    let content = |path: PathBuf| {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        (name, disk.peek(&path).expect("written"))
    };
    paths.into_iter().chain([superblock_path(&directory)]).map(content).collect()
}
