use super::*;

fn resolve(cli: Cli) -> Result<Config, String> {
    Config::resolve(&cli).map_err(|error| format!("{error:#}"))
}

fn with_file(text: &str, cli: Cli) -> Result<Config, String> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    resolve(Cli { config: Some(file.path().into()), ..cli })
}

#[test]
fn defaults_need_no_file() {
    let config = resolve(Cli { cores: Some("1".into()), ..Cli::default() }).unwrap();
    assert_eq!((config.listen_host.as_str(), config.ports.as_slice()), ("localhost", &[9092][..]));
    assert_eq!(config.log.data_dir, PathBuf::from("./thalweg-data"));
    assert_eq!(config.nodes(&[9092]), [Node { host: "localhost".into(), port: 9092 }]);
    assert!(config.warnings.is_empty());
}

#[test]
fn the_command_line_wins_over_the_file() {
    let text = "data_dir = \"a\"\njournal_size = \"16MiB\"\nnum.partitions = 3\n[log]\nretention.hours = 1\n";
    let config = with_file(text, Cli { data_dir: Some("b".into()), cores: Some("1".into()), ..Cli::default() }).unwrap();
    assert_eq!((config.log.data_dir, config.log.journal_bytes), (PathBuf::from("b"), 16 << 20));
    assert_eq!(config.settings.num_partitions, 3);
    assert_eq!(config.settings.properties["log.retention.hours"], "1");
}

#[test]
fn kafkas_names_do_what_they_do_in_kafka() {
    let text = "log.dirs = \"/x\"\nlisteners = \"PLAINTEXT://:9000\"\nadvertised.listeners = \"PLAINTEXT://db7:9001\"\n";
    let config = with_file(text, Cli { cores: Some("1".into()), ..Cli::default() }).unwrap();
    assert_eq!((config.listen_host.as_str(), config.ports.as_slice()), ("0.0.0.0", &[9000][..]));
    assert_eq!(config.nodes(&config.ports), [Node { host: "db7".into(), port: 9001 }]);
    assert_eq!(config.log.data_dir, PathBuf::from("/x"));
}

#[test]
fn an_unknown_key_is_a_warning_that_names_the_nearest() {
    let config = with_file("num.partition = 3\n", Cli::default()).unwrap();
    assert_eq!(config.warnings, ["unknown key num.partition is ignored; did you mean num.partitions?"]);
}

#[test]
fn two_names_of_one_setting_are_refused_with_both() {
    let cases = [
        ("data_dir = \"a\"\nlog.dirs = \"b\"", ["data_dir = \"a\"", "log.dirs = \"b\""]),
        ("data-dir = \"a\"\ndata_dir = \"b\"", ["data-dir", "data_dir"]),
        ("log.dir = \"a\"\nlog.dirs = \"a\"", ["log.dir ", "log.dirs "]),
        ("listen = \"localhost\"\nlisteners = \"PLAINTEXT://:9092\"", ["listen ", "listeners "]),
        ("advertise = \"db7\"\nadvertised.listeners = \"PLAINTEXT://db8:9092\"", ["advertise ", "advertised.listeners "]),
    ];
    for (text, names) in cases {
        let error = with_file(text, Cli::default()).unwrap_err();
        assert!(names.iter().all(|name| error.contains(name)) && error.contains("keep one"), "{text}: {error}");
    }
    // The command line is no second name: it wins.
    let cli = Cli { data_dir: Some("b".into()), cores: Some("1".into()), ..Cli::default() };
    assert_eq!(with_file("log.dirs = \"a\"", cli).unwrap().log.data_dir, PathBuf::from("b"));
}

#[test]
fn what_has_no_meaning_here_is_said_once_for_all_of_it() {
    let text = "num.network.threads = 3\nnum.io.threads = 8\nnum.partitions = 2\nreplica.fetch.max.bytes = 1\n";
    let config = with_file(text, Cli::default()).unwrap();
    let [warning] = &config.warnings[..] else { panic!("{:?}", config.warnings) };
    assert!(warning.ends_with("no effect: num.io.threads, num.network.threads, replica.fetch.max.bytes"), "{warning}");
    assert_eq!(config.settings.properties["num.io.threads"], "8", "as a client is told that asks for it");
    assert!(!config.kept.contains("num.io.threads"), "no data depends on it");
}

#[test]
fn listening_on_all_addresses_needs_a_name_for_clients() {
    let cli = |listen: &str| Cli { listen: Some(listen.into()), ..Cli::default() };
    for listen in ["0.0.0.0:9092", "[::]:9092", ":9092"] {
        let error = resolve(cli(listen)).unwrap_err();
        assert!(error.contains("--advertise"), "{error}");
    }
    let config = resolve(Cli { advertise: Some("db7".into()), cores: Some("1".into()), ..cli("0.0.0.0:9092") }).unwrap();
    assert_eq!(config.nodes(&[9092]), [Node { host: "db7".into(), port: 9092 }]);
}

#[test]
fn wrong_values_say_what_is_right() {
    let cases = [
        ("cores = 100000", "CPUs"),
        ("core_ports = [1, 2, 3, 4, 5, 6, 7, 8, 9]", "one port per core"),
        ("journal_size = \"big\"", "64MiB"),
        ("journal_size = \"1\"", "1 MiB to 1 TiB"),
        ("journal_size = \"2TiB\"", "1 MiB to 1 TiB"),
        ("listen = \"SSL://x:1\"", "PLAINTEXT"),
        ("num.partitions = 0", "num.partitions"),
        ("validate = \"no\"", "strict"),
        ("listen = \"localhost:65536\"", "not a port"),
        ("log.dirs = \"a,b\"", "one data directory"),
        ("x = ", "not TOML"),
        ("listen = \"9093\"", "localhost:9093"),
        ("advertise = \"9093\"", "it has no host"),
        ("cores = 100000", "Give a number from 1 to"),
        ("listen = \"localhost:9092\"\ncore_ports = [9000]\ncores = 1", "listen says port 9092 for core 0, and core_ports says 9000"),
        ("advertise = \"db7:1\"\nadvertise_ports = [2]\ncores = 1", "advertise_ports says 2"),
    ];
    for (text, expected) in cases {
        let error = with_file(text, Cli::default()).unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
    }
}
