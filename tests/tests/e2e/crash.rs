//! The image store after kills, power cuts and full disks: it opens, everything in it is whole (`tests/check-store.sh`), and
//! what was interrupted can be done again. A few rounds here; `make crash-test` does many.

use std::path::Path;
use std::time::{Duration, Instant};

use wherry_tests::registry::Registry;
use wherry_tests::{Engine, Host, Output, poll};

const PORT: u16 = 5000;
const PULLED: &str = "127.0.0.1:5000/crash:latest";
const JOBS: [&str; 4] = ["pull", "load", "rmi", "prune"];

fn rounds(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

/// Numbers between 0 and 1 that soon have been everywhere.
fn fraction(round: usize) -> f64 {
    (round as f64 * 0.618_033_988_749_895).fract()
}

fn script(name: &str) -> String {
    format!("{}/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn checked(host: &Host, engine: &Engine) -> Output {
    let docker_host = format!("DOCKER_HOST=unix://{}/socket", engine.root().display());
    let data = engine.root().join("data").display().to_string();
    host.exec(&["env", &docker_host, "bash", &script("check-store.sh"), &data])
}

fn check(host: &Host, engine: &Engine) {
    checked(host, engine).ok();
}

fn shell(host: &Host, line: &str) -> Output {
    host.exec(&["bash", "-ec", line]).ok()
}

/// An image in an archive, and in a registry as [`PULLED`].
struct Source {
    archive: String,
    id: String,
}

impl Source {
    fn new(host: &Host, megabytes: usize) -> Source {
        let archive = host.folder().join("crash.tar").display().to_string();
        let line = format!("TMPDIR=/var/tmp {} {archive} {PULLED} {megabytes}", script("crash-image.sh"));
        let config = shell(host, &format!("{line}; tar -xOf {archive} config.json | sha256sum"));
        Registry::start(host, PORT).add_archive(Path::new(&archive), "crash", "latest");
        Source { archive, id: format!("sha256:{}", &config.stdout[..64]) }
    }

    fn line(&self, job: &str) -> Vec<&str> {
        match job {
            "pull" => vec!["pull", "-q", PULLED],
            "load" => vec!["load", "-q", "-i", &self.archive],
            "rmi" => vec!["rmi", PULLED],
            _ => vec!["image", "prune", "-af"],
        }
    }

    /// Brings the image there or away, so that there is something to do.
    fn prepare(&self, engine: &Engine, job: &str) {
        match job {
            "pull" | "load" => drop(engine.docker(&["rmi", "-f", PULLED])),
            _ => drop(engine.docker(self.line("load").as_slice()).ok()),
        }
    }

    fn is_there(&self, engine: &Engine) -> bool {
        engine.docker("images -aq --no-trunc").ok().stdout.contains(&self.id)
    }

    /// Does to the end what was begun.
    fn finish(&self, engine: &Engine, job: &str) {
        let output = engine.docker(self.line(job).as_slice());
        let was_done = job == "rmi" && output.stderr.contains("No such image");
        assert!(output.code == 0 || was_done, "{output}");
        assert_eq!(self.is_there(engine), matches!(job, "pull" | "load"), "{job}");
    }
}

/// How long each job takes when nobody interrupts it.
fn durations(source: &Source, engine: &Engine) -> Vec<Duration> {
    let measure = |job: &&str| {
        source.prepare(engine, job);
        let begin = Instant::now();
        source.finish(engine, job);
        begin.elapsed()
    };
    JOBS.iter().map(measure).collect()
}

/// What says that all is well must be able to say otherwise.
#[test]
fn the_check_notices_damage() {
    let host = Host::new();
    check(&host, &host);
    let layers = host.root().join("data/overlay2");
    let layer = std::fs::read_dir(&layers).unwrap().map(|entry| entry.unwrap().path());
    let layer = layer.filter(|path| path.join("layer.json").exists()).last().unwrap();
    let motd = layer.join("diff/etc/passwd").display().to_string();
    let damages = [
        (format!("cp -a {motd} {motd}.kept; echo >>{motd}"), format!("mv {motd}.kept {motd}")),
        (format!("chmod 600 {motd}"), format!("chmod 644 {motd}")),
        (format!("touch {motd}.more"), format!("rm {motd}.more")),
        (format!("mkdir {}/aa", layers.display()), format!("rmdir {}/aa", layers.display())),
    ];
    for (damage, repair) in damages {
        shell(&host, &damage);
        let output = checked(&host, &host);
        assert!(output.code != 0 && output.stderr.contains("check-store:"), "{damage}: {output}");
        shell(&host, &repair);
    }
}

#[test]
fn the_store_is_whole_wherever_the_engine_is_killed() {
    let host = Host::new();
    let source = Source::new(&host, 12);
    host.docker("create --name keeper busybox true").ok(); // whose image no pruning may touch
    let durations = durations(&source, &host);
    let mut there = 0;
    for round in 0..rounds("CRASH_KILLS", 8) {
        let (job, duration) = (JOBS[round % JOBS.len()], durations[round % JOBS.len()]);
        source.prepare(&host, job);
        let client = host.docker_session(source.line(job).as_slice());
        std::thread::sleep(duration.mul_f64(fraction(round) * 1.2));
        host.kill();
        client.wait();
        host.start();
        there += usize::from(source.is_there(&host));
        check(&host, &host);
        source.finish(&host, job);
        check(&host, &host);
        println!("round {round}: {job} killed, whole and finished");
    }
    println!("killed: {there} times with the image there");
    host.docker("start keeper").ok();
}

/// The engine's data are on a disk in a file, whose own file system is frozen for the moment in which the disk is copied:
/// the copy has what had reached the disk by then and nothing else. It is started from as after another boot.
#[test]
fn the_store_is_whole_after_a_power_cut() {
    let host = Host::new();
    let source = Source::new(&host, 12);
    assert_eq!(host.stop(), 0);
    let engine = host.another_engine("cut", &["--bridge", "none"]);
    let work = host.folder().display().to_string();
    let data = engine.root().join("data").display().to_string();
    shell(
        &host,
        &format!(
            "mkdir -p {work}/outer {data}; truncate -s 900M {work}/outer.img; mkfs.ext4 -q {work}/outer.img
             mount -o loop {work}/outer.img {work}/outer; truncate -s 400M {work}/outer/disk.img
             mkfs.ext4 -q {work}/outer/disk.img; mount -o loop {work}/outer/disk.img {data}"
        ),
    );
    engine.start();
    let after = host.another_engine("after", &["--bridge", "none"]);
    let copied = after.root().join("data").display().to_string();
    shell(
        &host,
        &format!(
            "mkdir -p {copied}; echo another >{work}/boot; mount --bind {work}/boot /proc/sys/kernel/random/boot_id"
        ),
    );
    let durations = durations(&source, &engine);
    let mut there = 0;
    for round in 0..rounds("CRASH_CUTS", 3) {
        let (job, duration) = (JOBS[round % JOBS.len()], durations[round % JOBS.len()]);
        source.prepare(&engine, job);
        let client = engine.docker_session(source.line(job).as_slice());
        // Also some time later: what was published goes to the disk in the background.
        std::thread::sleep(duration.mul_f64(fraction(round) * 2.0));
        shell(
            &host,
            &format!(
                "fsfreeze -f {work}/outer; trap 'fsfreeze -u {work}/outer' EXIT
                 cp --sparse=always {work}/outer/disk.img {work}/copy.img"
            ),
        );
        client.wait();
        shell(&host, &format!("mount -o loop {work}/copy.img {copied}"));
        after.start();
        there += usize::from(source.is_there(&after));
        check(&host, &after);
        source.finish(&after, job);
        check(&host, &after);
        assert_eq!(after.stop(), 0);
        shell(&host, &format!("umount {copied}; rm {work}/copy.img"));
        println!("round {round}: {job} cut, whole and finished");
    }
    println!("cut: {there} times with the image there");
    assert_eq!(engine.stop(), 0);
    shell(&host, &format!("umount /proc/sys/kernel/random/boot_id {data} {work}/outer"));
}

#[test]
fn a_full_disk_is_told_and_leaves_everything_as_it_was() {
    let host = Host::new();
    let source = Source::new(&host, 60);
    let busybox = host.image_archive("busybox:latest", "").display().to_string();
    let small = host.image_archive("small:latest", r#"{"User":"small"}"#).display().to_string();
    assert_eq!(host.stop(), 0);
    let engine = host.another_engine("full", &["--bridge", "none"]);
    let (work, data) =
        (host.folder().display().to_string(), engine.root().join("data").display().to_string());
    shell(
        &host,
        &format!(
            "mkdir -p {data}; truncate -s 48M {work}/small.img; mkfs.ext4 -q -m 0 -N 4096 {work}/small.img
             mount -o loop {work}/small.img {data}"
        ),
    );
    engine.start();
    engine.docker(&["load", "-q", "-i", &busybox]).ok();
    let used = || -> u64 {
        let text = shell(&host, &format!("sync -f {data}; df --output=used -k {data} | tail -1")).stdout;
        text.trim().parse().unwrap()
    };
    let images = || engine.docker("images -a --no-trunc").ok().stdout;
    let fails = |line: &[&str]| {
        let (before, list) = (used(), images());
        let output = engine.docker(line);
        let told = format!("{}{}", output.stdout, output.stderr).to_lowercase();
        assert!(told.contains("no space left on device"), "{line:?}: {output}");
        assert!(output.code != 0, "{line:?}: {output}");
        assert_eq!(images(), list);
        poll("the space to come back", 60, || used() <= before + 256);
        check(&host, &engine);
        println!("full disk: {} told", line[0]);
    };
    fails(&source.line("pull"));
    fails(&source.line("load"));
    // A container that leaves no room for a copy of what it has written.
    let fill = "dd if=/dev/urandom of=/fill bs=1M count=26 2>&1 && ls -l /fill";
    engine.docker(&["run", "--name", "full", "--network", "none", "busybox", "sh", "-c", fill]).ok();
    fails(&["commit", "full", "committed"]);
    engine.docker("rm full").ok();
    engine.docker(&["load", "-q", "-i", &small]).ok();
    check(&host, &engine);
    assert_eq!(engine.stop(), 0);
    shell(&host, &format!("umount {data}"));
}
