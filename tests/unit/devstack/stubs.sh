#!/bin/bash
#
# Stand-ins for devstack's functions: they write what they were asked into $CALLS, and the ini
# functions do their work in the simplest way. Sourced by test_plugin.py before the plug-in.

function called {
    echo "$*" >> $CALLS
}

function is_service_enabled {
    [[ " $ENABLED " == *" $1 "* ]]
}

function iniset {
    local file=$1 section=$2 option=$3 value=$4

    touch $file
    if ! grep -q "^\[$section\]" $file; then
        printf '\n[%s]\n' "$section" >> $file
    fi
    sed -i -e "/^\[$section\]/,/^\[.*\]/ { /^$option[ \t]*=/ d; }" $file
    sed -i -e "/^\[$section\]/a $option = $value" $file
}

function iniset_rpc_backend {
    iniset $2 $3 transport_url $(get_transport_url $4)
}

function get_transport_url {
    echo rabbit://user:secret@controller:5672/$1
}

function database_connection_url {
    echo mysql+pymysql://root:secret@127.0.0.1/$1
}

function configure_keystoneauth {
    iniset $1 $3 username $2
}

function get_python_exec_prefix {
    echo $BIN
}

function sudo {
    local -a kept
    local word skip=""

    called sudo "$@"
    if [[ $1 == rabbitmqctl ]]; then
        return 1
    fi
    # Nobody here may give files away
    for word in "$@"; do
        if [[ -n $skip ]]; then
            skip=""
        elif [[ $word == -o ]]; then
            skip=yes
        else
            kept+=("$word")
        fi
    done
    "${kept[@]}"
}

for name in define_plugin enable_service setup_develop create_service_user recreate_database \
    rpc_backend_add_vhost run_process stop_process echo_summary; do
    eval "function $name { called $name \"\$@\"; }"
done
