#!/bin/sh
# Builds the C library and installs it with its header and pkg-config file: `PREFIX=/usr/local sh capi/install.sh`,
# with DESTDIR in front of it for packages. Any arguments go to cargo (`--no-default-features`, `--features mixed-kv`).
set -eu
cd "$(dirname "$0")"
prefix=${PREFIX:-/usr/local}
root=${DESTDIR:-}$prefix
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)

cargo build --release "$@"
built=${CARGO_TARGET_DIR:-target}/release
install -d "$root/include" "$root/lib/pkgconfig"
install -m 644 include/gqa.h "$root/include"
install -m 644 "$built/libgqa.a" "$root/lib"
install -m 755 "$built/libgqa.so" "$root/lib/libgqa.so.$version"
ln -sf "libgqa.so.$version" "$root/lib/libgqa.so.0"
ln -sf libgqa.so.0 "$root/lib/libgqa.so"
sed -e "s|@PREFIX@|$prefix|" -e "s|@VERSION@|$version|" gqa.pc.in >"$root/lib/pkgconfig/gqa.pc"
