#!/bin/sh
# A throw-away PostgreSQL for tests: a cluster in DIR, reached by a unix socket there and, with PORT, at 127.0.0.1:PORT.
#   deploy/dev/postgres.sh start DIR [PORT]   prints the URL for LANDLINE_TEST_POSTGRES_URL
#   deploy/dev/postgres.sh stop DIR           ends it and removes DIR
# Needs PostgreSQL's server programs; installs nothing. Run by root it drops to the user postgres, as the server demands.
set -eu

fail() {
    echo "postgres.sh: $*" >&2
    exit 1
}

[ $# -eq 2 ] || [ $# -eq 3 ] || fail "usage: postgres.sh start DIR [PORT] | stop DIR"
command=$1
dir=$2
port=${3:-}
case $dir in
/*) ;;
*) dir=$PWD/$dir ;;
esac

programs() {
    if command -v initdb >/dev/null 2>&1 && command -v pg_ctl >/dev/null 2>&1; then
        return
    fi
    # Debian keeps the server's programs out of PATH, one folder per version: take the newest.
    newest=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1)
    [ -n "$newest" ] || fail "no PostgreSQL server found; on Debian: apt-get install postgresql"
    PATH=$newest:$PATH
    export PATH
}

as_server() {
    if [ "$(id -u)" -eq 0 ]; then
        # The server's folder may not be readable from where root stands.
        (cd / && exec setpriv --reuid=postgres --regid=postgres --clear-groups env PATH="$PATH" "$@")
    else
        "$@"
    fi
}

start() {
    programs
    [ ! -e "$dir/data" ] || fail "$dir/data exists; stop it first"
    # The kernel takes 107 bytes for a socket's path, which ends in /.s.PGSQL.5432.
    [ ${#dir} -le 90 ] || fail "$dir is too long for a unix socket"
    mkdir -p "$dir"
    if [ "$(id -u)" -eq 0 ]; then
        id postgres >/dev/null 2>&1 || fail "there is no user postgres to run the server as"
        chown postgres: "$dir"
    fi
    chmod 700 "$dir"
    as_server initdb --auth=trust --username=postgres --encoding=UTF8 --locale=C --no-sync -D "$dir/data" >/dev/null
    cat >>"$dir/data/postgresql.conf" <<CONF
listen_addresses = '${port:+127.0.0.1}'
port = ${port:-5432}
unix_socket_directories = '$dir'
max_connections = 500
shared_buffers = 64MB
CONF
    as_server pg_ctl -D "$dir/data" -l "$dir/log" -w -t 30 start >/dev/null || {
        cat "$dir/log" >&2
        fail "the server did not start"
    }
    if [ -n "$port" ]; then
        echo "postgres://postgres@127.0.0.1:$port/postgres"
    else
        echo "postgres://postgres@localhost/postgres?host=$dir"
    fi
}

stop() {
    programs
    if [ -e "$dir/data/postmaster.pid" ]; then
        as_server pg_ctl -D "$dir/data" -m immediate -w -t 30 stop >/dev/null
    fi
    rm -rf "$dir/data" "$dir/log"
    # A folder that the caller made and filled stays.
    rmdir "$dir" 2>/dev/null || true
}

case $command in
start) start ;;
stop) stop ;;
*) fail "usage: postgres.sh start DIR [PORT] | stop DIR" ;;
esac
