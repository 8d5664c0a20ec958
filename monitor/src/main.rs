//! The `httpmon` binary.
fn main() {
    tracing_subscriber::fmt().with_max_level(tracing::Level::INFO).init();
    let s = monitor::kernel::Settings {
        flavour: if std::env::var("C").is_ok() { Some(monitor::kernel::Flavour::Classic) } else { None },
        btf: monitor::kernel::BTF_PATH.into(),
        debug: true,
    };
    let mut p = match monitor::kernel::Probes::load(&s) {
        Ok(p) => p,
        Err(e) => {
            eprintln!("{e}");
            return;
        }
    };
    p.attach().unwrap();
    for a in std::env::args().skip(1) {
        p.select(a.parse().unwrap(), monitor::event::ServiceId(1)).unwrap();
    }
    loop {
        let n = p.drain(1000, |b| {
            let e = monitor::event::decode(b);
            println!("{} {e:?}", b.len());
        });
        if n == 0 {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}
