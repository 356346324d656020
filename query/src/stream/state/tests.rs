//! Versions, undo, removed rows and texts of a table, against models.

use proptest::prelude::*;

use super::{sweep::SWEEP_FROM, *};

/// Rows of a number and a text.
fn table() -> Table {
    Table::new(2, vec![HEADER + 1])
}

fn set(table: &mut Table, key: &[u8], value: u64) {
    let hash = table.hasher().hash_one(key);
    let row = table.touch(hash, key, value.cast_signed());
    table.accumulators_mut(row)[0] = value;
    table.put_text(row, 1, value.to_string().as_bytes());
}

fn read(table: &Table, version: Version) -> BTreeMap<Vec<u8>, u64> {
    let rows = 0..RowNumber::try_from(table.rows()).unwrap();
    let value = |words: &[u64]| {
        assert_eq!(table.text(words[HEADER + 1]), words[HEADER].to_string().as_bytes());
        words[HEADER]
    };
    rows.filter_map(|row| table.row_at(row, version).map(|words| (table.key(row).to_vec(), value(words)))).collect()
}

/// Rows of a number, which can be removed: it is 0 then.
fn removable() -> Table {
    Table::new(2, vec![HEADER + 1]).removable(HEADER)
}

/// Keys and numbers, in the order of the rows.
type Rows = Vec<(Vec<u8>, u64)>;

/// All that a table has for its rows, but for undo.
fn contents(table: &Table) -> (Vec<u64>, Vec<u8>, Vec<u64>, Vec<u8>, usize, Version) {
    let Table { key_ends, keys, words, text, index, version, .. } = table;
    (key_ends.clone(), keys.clone(), words.clone(), text.bytes.clone(), index.len(), *version)
}

fn changes() -> impl Strategy<Value = Vec<(u8, u64)>> {
    prop::collection::vec((0u8..12, any::<u64>()), 0..8)
}

proptest! {
    #[test]
    fn every_pinned_version_reads_as_it_was(
        steps in prop::collection::vec((changes(), 0u8..5, any::<prop::sample::Index>()), 1..40)
    ) {
        let mut table = table();
        let mut model = BTreeMap::new();
        let mut history = vec![model.clone()];
        let mut pinned: Vec<Version> = Vec::new();
        for (changes, action, which) in steps {
            let before = contents(&table);
            table.begin();
            for (key, value) in &changes {
                set(&mut table, &[*key], *value);
            }
            if action == 4 {
                table.roll_back();
                prop_assert_eq!(contents(&table), before);
            } else {
                model.extend(changes.into_iter().map(|(key, value)| (vec![key], value)));
                history.push(model.clone());
            }
            match action {
                0 => table.commit(table.version()),
                1 => { table.commit(table.version()); pinned.push(table.pin()); }
                2 if !pinned.is_empty() => { let version = pinned.swap_remove(which.index(pinned.len())); table.unpin(version); }
                // Steps may run ahead of what is committed.
                2 | 3 => pinned.push(table.pin()),
                _ => {}
            }
            for version in pinned.iter().chain([&table.committed(), &table.version()]) {
                prop_assert_eq!(&read(&table, *version), &history[usize::try_from(version.0).unwrap()]);
                prop_assert_eq!(table.rows_at(*version), history[usize::try_from(version.0).unwrap()].len());
            }
        }
        for version in pinned.drain(..) {
            table.unpin(version);
        }
        table.commit(table.version());
        prop_assert_eq!(table.undo_bytes(), 0);
    }
}

proptest! {
    #[test]
    fn rows_are_removed_and_come_again_in_every_version(
        steps in prop::collection::vec((prop::collection::vec((any::<u8>(), 0u64..3), 0..400), 0u8..5), 1..30)
    ) {
        let mut table = removable();
        let mut model: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
        let mut pinned: Vec<(Version, BTreeMap<Vec<u8>, u64>)> = Vec::new();
        let mut committed = model.clone();
        for (changes, action) in steps {
            let (from, before) = (table.version(), model.clone());
            // A step in one, or as one for each change.
            let whole = action % 2 == 0;
            if whole || changes.is_empty() { table.begin(); }
            for (key, value) in &changes {
                if !whole { table.begin(); }
                set(&mut table, &[*key], *value);
                if *value == 0 {
                    let row = table.find(&[*key]).unwrap();
                    table.remove(row);
                    model.remove(&vec![*key]);
                } else {
                    model.insert(vec![*key], *value);
                }
            }
            table.join_after(from);
            let touched: Vec<Vec<u8>> = table.touched_after(from).into_iter().flatten().map(|(row, _)| table.key(row).to_vec()).collect();
            let mut expected: Vec<Vec<u8>> = Vec::new();
            for (key, _) in &changes {
                if !expected.contains(&vec![*key]) { expected.push(vec![*key]); }
            }
            prop_assert_eq!(touched, expected);
            if action == 4 {
                table.roll_back_to(from);
                model = before;
            } else {
                table.commit(table.version());
                committed = model.clone();
            }
            match action {
                1 => pinned.push((table.pin(), committed.clone())),
                3 => if let Some((version, _)) = pinned.pop() { table.unpin(version); },
                _ => {}
            }
            for (version, rows) in pinned.iter().map(|(version, rows)| (*version, rows)).chain([(table.committed(), &committed)]) {
                prop_assert_eq!(&read(&table, version), rows);
            }
        }
    }
}

proptest! {
    #[test]
    fn pages_give_the_rows_of_the_version_that_was_kept_while_steps_go_on(
        steps in prop::collection::vec((prop::collection::vec((0u16..1200, 0u64..3), 0..600), any::<bool>(), any::<bool>()), 1..10)
    ) {
        let mut table = removable();
        let mut pages: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
        let mut saved: Option<Version> = None;
        // A version that is kept, and what it has.
        let mut kept: Option<(Version, Rows)> = None;
        let rows = |table: &Table, version| -> Rows {
            let rows = 0..RowNumber::try_from(table.rows_at(version)).unwrap();
            rows.filter_map(|row| Some((table.key(row).to_vec(), table.row_at(row, version)?[HEADER]))).collect()
        };
        for (changes, keeps, writes) in steps {
            table.begin();
            for (key, value) in changes {
                set(&mut table, &key.to_le_bytes(), value);
                if value == 0 {
                    let row = table.find(&key.to_le_bytes()).unwrap();
                    table.remove(row);
                }
            }
            table.commit(table.version());
            if kept.is_none() && keeps {
                let version = table.keep();
                kept = Some((version, rows(&table, version)));
            }
            if let Some((version, expected)) = kept.take_if(|_| writes) {
                for page in table.pages_changed(saved, version) {
                    let mut bytes = Vec::new();
                    table.write_page(page, version, &mut bytes);
                    pages.insert(page, bytes);
                }
                let count = table.rows_at(version);
                table.let_go();
                saved = Some(version);
                let mut again = removable();
                for page in 0..u32::try_from(pages_of(count)).unwrap() {
                    prop_assert!(again.read_page(&pages[&page]).is_some());
                }
                prop_assert!(again.has_read(count));
                prop_assert_eq!(rows(&again, Version::default()), expected);
                prop_assert_eq!(again.pages_changed(Some(Version::default()), Version::default()), Vec::<u32>::new());
            }
        }
        table.let_go();
        table.commit(table.version());
        prop_assert_eq!(table.undo_bytes(), 0);
    }

    #[test]
    fn no_bytes_panic_who_reads_a_page(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut table = removable();
        let _ = table.read_page(&bytes);
        let mut table = table;
        table.clear();
        prop_assert_eq!(table.rows(), 0);
    }
}

#[test]
fn who_looks_into_an_open_step_hides_nothing_that_it_changes_later() {
    let mut table = table();
    table.begin();
    [b"a", b"b"].into_iter().for_each(|key| set(&mut table, key, 1));
    table.commit(table.version());
    let pin = table.pin();
    table.begin();
    set(&mut table, b"a", 2);
    assert_eq!(read(&table, pin).values().copied().collect::<Vec<_>>(), [1, 1]);
    set(&mut table, b"b", 2);
    assert_eq!(read(&table, pin).values().copied().collect::<Vec<_>>(), [1, 1]);
}

#[test]
fn what_is_cut_off_is_no_page() {
    let mut table = table();
    table.begin();
    (0..3).for_each(|key| set(&mut table, &[key; 5], 1 << 40));
    table.commit(table.version());
    let (version, mut bytes) = (table.keep(), Vec::new());
    table.write_page(0, version, &mut bytes);
    let whole = (0..bytes.len()).filter(|end| {
        let mut again = self::table();
        again.read_page(&bytes[..*end]).is_some() && again.has_read(3)
    });
    assert_eq!(whole.count(), 0);
}

#[test]
fn rows_that_moved_were_touched() {
    let mut table = removable();
    table.begin();
    (1..=5000_u64).for_each(|key| set(&mut table, &key.to_le_bytes(), key));
    table.commit(table.version());
    let first = table.committed();
    assert_eq!(table.touched_within(&(0..5000)), first);
    table.begin();
    for key in 1000..5000_u64 {
        let row = table.touch(table.hasher().hash_one(&key.to_le_bytes()[..]), &key.to_le_bytes(), 0);
        table.remove(row);
    }
    // Of pages of 256 rows: the first ones have no row that was removed.
    assert_eq!(table.touched_within(&(0..768)), first);
    let reader = table.pin();
    table.commit(table.version());
    assert!(table.rows() == 5000 && table.touched_within(&(0..768)) == first, "a reader keeps the rows where they are");
    table.unpin(reader);
    table.begin();
    set(&mut table, b"new", 1);
    table.commit(table.version());
    assert!(table.rows() < 5000, "nobody needs the places any more");
    assert!(table.touched_within(&(0..256)) > first);
}

#[test]
fn the_places_of_removed_rows_are_used_again() {
    let mut table = removable();
    for round in 0..100_u64 {
        table.begin();
        for key in 0..100_u64 {
            let key = (round * 100 + key).to_le_bytes();
            set(&mut table, &key, 1);
        }
        if round > 0 {
            for key in 0..100_u64 {
                let key = ((round - 1) * 100 + key).to_le_bytes();
                let row = table.touch(table.hasher().hash_one(&key[..]), &key, 0);
                table.remove(row);
            }
        }
        table.commit(table.version());
    }
    assert!(table.rows() < 3000, "{}", table.rows());
    assert_eq!(read(&table, table.version()).len(), 100);
}

#[test]
fn an_old_pin_costs_one_copy_of_a_row_however_many_steps_follow() {
    let mut table = table();
    table.begin();
    set(&mut table, b"a", 0);
    table.commit(table.version());
    let pin = table.pin();
    for value in 1..1000 {
        table.begin();
        set(&mut table, b"a", value);
        table.commit(table.version());
    }
    assert!(table.undo_bytes() < 200, "{}", table.undo_bytes());
    assert_eq!(read(&table, pin).values().copied().collect::<Vec<_>>(), [0]);
}

#[test]
fn what_readers_need_to_find_rows_is_counted() {
    let mut table = table();
    for step in 0..2 {
        table.begin();
        (0..1000_u64).for_each(|key| set(&mut table, &key.to_le_bytes(), step));
        table.commit(Version(1));
    }
    table.pin();
    let unread = table.undo_bytes();
    assert_eq!(read(&table, Version(1)).len(), 1000);
    assert!(table.undo_bytes() >= unread + 1000 * size_of::<(RowNumber, usize)>(), "{unread}, then {}", table.undo_bytes());
}

#[test]
fn over_the_budget_the_oldest_reader_is_given_up_and_the_newest_stays() {
    let mut table = table();
    let mut pins = Vec::new();
    for step in 0..10 {
        table.begin();
        for key in 0..100u64 {
            set(&mut table, &key.to_le_bytes(), step);
        }
        table.commit(table.version());
        pins.push(table.pin());
    }
    table.give_up_beyond(table.undo_bytes() / 2);
    assert!(!table.readable(pins[0]));
    assert!(table.readable(pins[9]));
    assert!(read(&table, pins[9]).values().all(|value| *value == 9));
}

#[test]
fn texts_survive_a_sweep_in_the_table_and_in_undo() {
    let mut table = Table::new(1, vec![HEADER]);
    let write_to = |table: &mut Table, key: &[u8], text: &str| {
        let row = table.touch(table.hasher().hash_one(key), key, 0);
        table.put_text(row, 0, text.as_bytes());
    };
    let write = |table: &mut Table, text: &str| write_to(table, b"k", text);
    table.begin();
    write(&mut table, "first");
    table.commit(table.version());
    let pin = table.pin();
    for round in 0..400 {
        table.begin();
        write(&mut table, &format!("{round:08192}"));
        table.commit(table.version());
    }
    assert!(table.text.bytes.len() < 2 * SWEEP_FROM, "{}", table.text.bytes.len());
    let old = table.row_at(0, pin).unwrap()[HEADER];
    assert_eq!(table.text(old), b"first");
    let newest = |table: &Table| table.text(table.row_at(0, table.version()).unwrap()[HEADER]).to_vec();
    assert_eq!(newest(&table), format!("{:08192}", 399).as_bytes());
    // A sweep in the middle of a step that is taken back.
    table.begin();
    (0..400).for_each(|round| write(&mut table, &format!("{round:08192}")));
    table.unpin(pin);
    assert!(table.text.bytes.len() < SWEEP_FROM, "{}", table.text.bytes.len());
    write(&mut table, "taken back");
    table.roll_back();
    assert_eq!(newest(&table), format!("{:08192}", 399).as_bytes());
    // The same, where more is left than there was before the step.
    let mut table = Table::new(1, vec![HEADER]);
    table.begin();
    write(&mut table, "first");
    write_to(&mut table, b"other", "stays");
    table.commit(table.version());
    let pin = table.pin();
    table.begin();
    (0..20).for_each(|_| write(&mut table, &"x".repeat(SWEEP_FROM / 10)));
    table.unpin(pin);
    assert!(table.text.bytes.len() < SWEEP_FROM, "{}", table.text.bytes.len());
    table.roll_back();
    assert_eq!(newest(&table), b"first");
    assert_eq!(table.text(table.row_at(1, table.version()).unwrap()[HEADER]), b"stays");
}
