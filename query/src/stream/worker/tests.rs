use std::sync::mpsc;

use foldlog_log::{
    Timestamp,
    clock::{ManualClock, SystemClock},
};

use super::*;

struct Script(Box<dyn FnMut(&Waker) -> Turn + Send>, mpsc::Sender<String>);

impl Work for Script {
    fn turn(&mut self, waker: &Waker) -> Turn {
        (self.0)(waker)
    }

    fn panicked(&mut self, what: String) {
        self.1.send(what).unwrap();
    }
}

fn pool() -> Pool {
    Pool::start(2, Arc::new(SystemClock::new())).unwrap()
}

#[test]
fn a_wake_during_a_turn_gives_another_turn() {
    let (told, heard) = mpsc::channel();
    let pool = pool();
    let mut turns = 0;
    let tell = told.clone();
    let script = move |waker: &Waker| {
        turns += 1;
        waker.wake_by_ref();
        if turns == 100 {
            tell.send("done".to_owned()).unwrap();
            return Turn::Done;
        }
        Turn::Wait
    };
    let _job = pool.spawn(Script(Box::new(script), told));
    assert_eq!(heard.recv_timeout(Duration::from_secs(10)).unwrap(), "done");
    pool.stop();
}

#[test]
fn a_panic_ends_its_job_and_no_other() {
    let (told, heard) = mpsc::channel();
    let pool = pool();
    for _ in 0..4 {
        pool.spawn(Script(Box::new(|_| panic!("broken")), told.clone()));
        assert_eq!(heard.recv_timeout(Duration::from_secs(10)).unwrap(), "broken");
    }
    pool.stop();
}

/// Has the one worker of a pool wait until the answer is dropped, so that what is spawned meanwhile is in line together.
fn stall(pool: &Pool) -> mpsc::Sender<()> {
    let (go, gone) = mpsc::channel::<()>();
    let (told, _heard) = mpsc::channel();
    let script = move |_: &Waker| {
        // Only its end is waited for.
        let _ = gone.recv();
        Turn::Done
    };
    pool.spawn(Script(Box::new(script), told));
    go
}

/// A job that tells its name in each turn, and what it wants after it.
fn telling(pool: &Pool, name: &'static str, mut wants: impl FnMut() -> Turn + Send + 'static, told: &mpsc::Sender<String>) -> Arc<Job> {
    let tell = told.clone();
    let script = move |_: &Waker| {
        tell.send(name.to_owned()).unwrap();
        wants()
    };
    pool.spawn(Script(Box::new(script), told.clone()))
}

fn then_done(first: Turn) -> impl FnMut() -> Turn + Send {
    let mut wants = [first].into_iter();
    move || wants.next().unwrap_or(Turn::Done)
}

#[test]
fn turns_in_a_row_come_when_nobody_else_is_in_line() {
    let (told, heard) = mpsc::channel();
    let pool = Pool::start(1, Arc::new(ManualClock::at(Timestamp::new(0)))).unwrap();
    let go = stall(&pool);
    let mut others = 0;
    let other = move || {
        others += 1;
        if others < 3 { Turn::Again } else { Turn::Done }
    };
    let _jobs = [
        telling(&pool, "first", then_done(Turn::Together), &told),
        telling(&pool, "other", other, &told),
        telling(&pool, "second", then_done(Turn::Together), &told),
    ];
    drop(go);
    let turns: Vec<String> = (0..7).map(|_| heard.recv_timeout(Duration::from_secs(10)).unwrap()).collect();
    assert_eq!(turns, ["first", "other", "second", "other", "other", "first", "second"]);
    pool.stop();
}

#[test]
fn turns_in_a_row_come_soon_where_somebody_is_always_in_line() {
    let (told, heard) = mpsc::channel();
    let clock = Arc::new(ManualClock::at(Timestamp::new(0)));
    let pool = Pool::start(1, Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
    let busy = pool.spawn(Script(Box::new(|_| Turn::Again), told.clone()));
    let _job = telling(&pool, "waits", then_done(Turn::Together), &told);
    heard.recv_timeout(Duration::from_secs(10)).unwrap();
    assert!(heard.recv_timeout(Duration::from_millis(20)).is_err(), "somebody else is in line, and no time has passed");
    clock.advance(GATHERING);
    assert_eq!(heard.recv_timeout(Duration::from_secs(10)).unwrap(), "waits");
    drop(busy);
    pool.stop();
}

#[test]
fn turns_in_a_row_come_when_they_are_many() {
    let (told, heard) = mpsc::channel();
    let pool = Pool::start(1, Arc::new(ManualClock::at(Timestamp::new(0)))).unwrap();
    let go = stall(&pool);
    let _busy = pool.spawn(Script(Box::new(|_| Turn::Again), told.clone()));
    let _jobs: Vec<Arc<Job>> = (0..GATHERED + 1).map(|_| telling(&pool, "one", then_done(Turn::Together), &told)).collect();
    drop(go);
    for turn in 0..2 * GATHERED + 1 {
        heard.recv_timeout(Duration::from_secs(10)).unwrap_or_else(|_| panic!("{turn} turns"));
    }
    assert!(heard.recv_timeout(Duration::from_millis(20)).is_err(), "the last one is alone");
    pool.stop();
}

#[test]
fn an_urgent_job_goes_before_those_in_line() {
    let (told, heard) = mpsc::channel();
    let pool = Pool::start(1, Arc::new(SystemClock::new())).unwrap();
    let go = stall(&pool);
    let _first = telling(&pool, "first", || Turn::Done, &told);
    let tell = told.clone();
    let mut turns = 0;
    let urgent = move |waker: &Waker| {
        tell.send("urgent".to_owned()).unwrap();
        turns += 1;
        if turns > 1 {
            return Turn::Done;
        }
        waker.wake_by_ref();
        Turn::Wait
    };
    let _urgent = pool.spawn_urgent(Script(Box::new(urgent), told));
    drop(go);
    let turns: Vec<String> = (0..3).map(|_| heard.recv_timeout(Duration::from_secs(10)).unwrap()).collect();
    assert_eq!(turns, ["urgent", "urgent", "first"]);
    pool.stop();
}

#[test]
fn later_comes_while_others_are_always_ready() {
    let (told, heard) = mpsc::channel();
    let pool = Pool::start(1, Arc::new(SystemClock::new())).unwrap();
    let busy = pool.spawn(Script(Box::new(|_| Turn::Again), told.clone()));
    let mut turns = 0;
    let tell = told.clone();
    let script = move |_: &Waker| {
        turns += 1;
        if turns == 1 {
            return Turn::Later(Duration::from_millis(1));
        }
        tell.send("done".to_owned()).unwrap();
        Turn::Done
    };
    let _job = pool.spawn(Script(Box::new(script), told));
    assert_eq!(heard.recv_timeout(Duration::from_secs(10)).unwrap(), "done");
    drop(busy);
    pool.stop();
}

#[test]
fn later_comes_without_a_wake() {
    let (told, heard) = mpsc::channel();
    let pool = pool();
    let tell = told.clone();
    let mut turns = 0;
    let script = move |_: &Waker| {
        turns += 1;
        if turns < 3 {
            return Turn::Later(Duration::from_millis(1));
        }
        tell.send("done".to_owned()).unwrap();
        Turn::Done
    };
    let _job = pool.spawn(Script(Box::new(script), told));
    assert_eq!(heard.recv_timeout(Duration::from_secs(10)).unwrap(), "done");
    pool.stop();
}
