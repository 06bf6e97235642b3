#!/bin/sh
# Installs the Landline agent from a master, or upgrades it. The same bytes for everybody: what differs stands in the
# command that runs it, which `landline enrol create` prints. The enrolment key comes on standard input, never as an argument.
#
#   ... | sh install.sh --url https://MASTER[:PORT] [--pin sha256//PIN | --sums SHA256] [options of landline-agent install]
#
# --url       where the master's public port is
# --pin       public key of the master's certificate; needs curl
# --sums      SHA-256 of the master's list of binaries, where there is no pin
# --platform  install for another machine than this one (with --root)
# Everything else goes to `landline-agent install`: --allow, --as, --name, --init, --root, ...
set -eu

say() { printf '%s\n' "landline: $*" >&2; }
die() {
	say "$1"
	exit "${2:-1}"
}

# Where nothing else is known to work, the last resort is a message that names the fix.
has() { command -v "$1" >/dev/null 2>&1; }

sha256_of() {
	if has sha256sum; then
		sha256sum <"$1" | cut -c1-64
	elif has sha256; then
		sha256 -q "$1"
	elif has shasum; then
		shasum -a 256 <"$1" | cut -c1-64
	elif has openssl; then
		openssl dgst -sha256 -r "$1" | cut -c1-64
	else
		die "no program here computes SHA-256; install coreutils or openssl"
	fi
}

# Not called fetch: that is FreeBSD's program.
# download PATH FILE: the whole file or a failure. With a pin the master is verified before a byte is taken; without one the
# hashes decide, all the way down from --sums.
download() {
	if [ -n "$pin" ]; then
		has curl || die "--pin needs curl; use the plain command instead, which checks hashes"
		curl -fsS -k --pinnedpubkey "$pin" --retry 3 -o "$2" "$url/$1" && return 0
		die "cannot fetch $url/$1: see curl's message above. A wrong pin means that this is not the master the command was made on"
	fi
	if has curl; then
		curl -fsS $insecure --retry 3 -o "$2" "$url/$1" && return 0
	elif has fetch; then
		if [ -n "$insecure" ]; then
			fetch -q --no-verify-peer --no-verify-hostname -o "$2" "$url/$1" && return 0
		else
			fetch -q -o "$2" "$url/$1" && return 0
		fi
	elif has wget; then
		if [ -n "$insecure" ]; then
			wget -q --no-check-certificate -O "$2" "$url/$1" && return 0
		else
			wget -q -O "$2" "$url/$1" && return 0
		fi
	else
		die "neither curl, fetch nor wget is here; install one of them"
	fi
	die "cannot fetch $url/$1; is the master's port open to tcp from here?"
}

this_platform() {
	os=$(uname -s)
	arch=$(uname -m)
	case $os in
	Linux) os=linux ;;
	FreeBSD) os=freebsd ;;
	*) die "$os is not supported; the agent runs on Linux and FreeBSD" ;;
	esac
	case $arch in
	x86_64 | amd64) arch=x86_64 ;;
	aarch64 | arm64) arch=aarch64 ;;
	armv7* | armv8l) arch=armv7 ;;
	riscv64) arch=riscv64 ;;
	*) die "no agent is built for $arch; build it there with: cargo build --release -p landline-agent" ;;
	esac
	printf '%s\n' "$os-$arch"
}

# binary PLATFORM FILE: fetched, and verified before anything is done with it.
binary() {
	if [ -n "$sums" ]; then
		want=$(sed -n "s|^\([0-9a-f]\{64\}\)  $1/landline-agent\$|\1|p" "$work/SHA256SUMS")
	else
		download "dl/$1/landline-agent.sha256" "$work/sum"
		want=$(cut -c1-64 <"$work/sum")
	fi
	[ -n "$want" ] || die "this master has no agent for $1; \`landline enrol create\` on it says how to add one"
	download "dl/$1/landline-agent" "$2"
	[ "$(sha256_of "$2")" = "$want" ] ||
		die "the agent's program is cut or was changed on its way (its SHA-256 is not the master's); nothing was run, try again"
	chmod 0755 "$2"
}

main() {
	url='' pin='' sums='' insecure='-k' platform=''
	# What is not for this script is kept for the program, behind a mark, in its order.
	left=$#
	while [ "$left" -gt 0 ]; do
		case $1 in
		--url | --pin | --sums | --platform)
			[ "$left" -gt 1 ] || die "$1 needs a value" 64
			case $1 in
			--url) url=${2%/} ;;
			--pin) pin=$2 ;;
			--sums) sums=$2 ;;
			--platform) platform=$2 ;;
			esac
			shift 2
			left=$((left - 2))
			;;
		--verified)
			# The system knows the master's certificate.
			insecure=''
			shift
			left=$((left - 1))
			;;
		*)
			set -- "$@" "$1"
			shift
			left=$((left - 1))
			;;
		esac
	done
	case $url in
	https://?*) ;;
	*) die "--url https://MASTER is missing; paste the whole command that \`landline enrol create\` printed" 64 ;;
	esac
	[ -n "$pin$sums" ] || [ -z "$insecure" ] ||
		die "nothing says how to know the master: --pin, --sums or --verified is missing; paste the whole command" 64

	umask 077
	work=$(mktemp -d) || die "no temporary folder can be made; set TMPDIR to one that can be written and executed from"
	trap 'rm -rf "$work"' EXIT
	trap 'exit 130' HUP INT TERM

	if [ -t 0 ]; then
		printf 'Enrolment key (not shown): ' >&2
		stty -echo 2>/dev/null || :
		IFS= read -r key || :
		stty echo 2>/dev/null || :
		printf '\n' >&2
	else
		IFS= read -r key || :
	fi

	here=$(this_platform)
	if [ -n "$sums" ]; then
		download dl/SHA256SUMS "$work/SHA256SUMS"
		[ "$(sha256_of "$work/SHA256SUMS")" = "$sums" ] ||
			die "the master's binaries are not those this command was made for; make a new one with \`landline enrol create\`"
	fi
	say "fetching the agent for $here"
	binary "$here" "$work/landline-agent"
	if [ -n "$platform" ] && [ "$platform" != "$here" ]; then
		say "fetching the agent for $platform"
		binary "$platform" "$work/for-the-image"
		set -- --binary "$work/for-the-image" "$@"
	fi
	# printf is part of the shell: the key is in no process's arguments and in no environment.
	if [ -n "${key:-}" ]; then
		printf '%s\n' "$key" | "$work/landline-agent" install --token-file - "$@"
	else
		"$work/landline-agent" install "$@" </dev/null
	fi
}

main "$@"
