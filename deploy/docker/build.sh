#!/usr/bin/env bash
# Builds the image from nothing but this repository and a Rust toolchain: one static program FROM scratch. No image is
# fetched. With docker, or with podman or buildah where docker is absent.
#
#     deploy/docker/build.sh                 carousel:VERSION and carousel:dev
#     CAROUSEL_BINARY=FILE deploy/docker/build.sh    the same of a static program that is already built
set -euo pipefail
cd "$(dirname "$0")/../.."

readonly target=x86_64-unknown-linux-gnu
readonly limit=$((30 * 1000 * 1000))

die() { printf 'build.sh: %s\n' "$*" >&2; exit 2; }

engine() {
    local candidate
    for candidate in "${CAROUSEL_ENGINE:-docker}" podman buildah; do
        if command -v "$candidate" >/dev/null; then
            printf '%s' "$candidate"
            return
        fi
    done
    die "found no docker, podman or buildah; install one, as with: apt-get install docker.io"
}

# The target is named so that build scripts and macros stay dynamic, as they must; a folder of its own keeps the flags
# from undoing the everyday build.
compile() {
    RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --locked --bin carousel --features cloud \
        --target "$target" --target-dir target/static >&2
    printf '%s' "target/static/$target/release/carousel"
}

# A static program has no interpreter: nothing that a scratch image lacks is asked for.
check_static() {
    if LC_ALL=C readelf -lW "$1" | grep -q 'INTERP'; then
        die "$1: found a dynamic program, expected a static one; build it with target-feature=+crt-static"
    fi
}

version() { sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml; }

main() {
    local engine binary context version size
    engine=$(engine)
    binary=${CAROUSEL_BINARY:-$(compile)}
    [ -f "$binary" ] || die "CAROUSEL_BINARY=$binary: no such file"
    check_static "$binary"
    context=$(mktemp -d)
    # shellcheck disable=SC2064 # the folder's name is fixed here
    trap "rm -rf '$context'" EXIT
    mkdir "$context/data" "$context/runs"
    strip --strip-all -o "$context/carousel" "$binary"
    chmod 0755 "$context/carousel" "$context/data" "$context/runs"
    cp deploy/docker/Dockerfile "$context/Dockerfile"
    size=$(stat -c %s "$context/carousel")
    [ "$size" -lt "$limit" ] || die "the stripped program has $size bytes, expected less than $limit"
    version=$(version)
    build "$engine" "$version" "$context"
    printf 'image       carousel:%s carousel:dev  %d.%d MB, by %s\n' \
        "$version" $((size / 1000000)) $((size / 100000 % 10)) "$engine"
}

build() {
    local tags=(-t "carousel:$2" -t carousel:dev)
    case $(basename "$1") in
        buildah) "$1" bud --format docker --pull-never -q "${tags[@]}" --build-arg "VERSION=$2" "$3" >/dev/null ;;
        podman) "$1" build --format docker --pull=never -q "${tags[@]}" --build-arg "VERSION=$2" "$3" >/dev/null ;;
        # The legacy builder where there is no buildx.
        *) "$1" build -q "${tags[@]}" --build-arg "VERSION=$2" "$3" >/dev/null ;;
    esac
}

main
