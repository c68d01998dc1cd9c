#!/bin/bash
#
# Installs, configures, starts and stops nova-batch-migrate in a devstack: a filter in nova-api, a
# conductor beside it, an agent on every node that runs nova-compute.
#
# Sourced by devstack with a mode and, for "stack", a phase. Never starts or stops anything of Nova.

_XTRACE_NOVA_BATCH=$(set +o | grep xtrace)
set +o xtrace

NOVA_BATCH_FILTER=batch_evacuate
NOVA_BATCH_APP=osapi_compute_app_v21

function is_nova_batch_conductor_enabled {
    is_service_enabled nova-batch-conductor && is_service_enabled n-api
}

function is_nova_batch_agent_enabled {
    is_service_enabled nova-batch-agent && is_service_enabled n-cpu
}

function install_nova_batch {
    setup_develop $NOVA_BATCH_DIR
}

# Start a configuration file anew with what every service needs
function _init_nova_batch_conf {
    local conf=$1
    local state_path=$2

    sudo install -d -o $STACK_USER -m 750 $NOVA_BATCH_CONF_DIR $NOVA_BATCH_STATE_PATH $state_path
    rm -f $conf
    touch $conf
    chmod 640 $conf
    iniset $conf DEFAULT debug $ENABLE_DEBUG_LOG_LEVEL
    iniset $conf DEFAULT state_path $state_path
}

function configure_nova_batch_controller {
    local conf=$NOVA_BATCH_CONF

    _init_nova_batch_conf $conf $NOVA_BATCH_STATE_PATH
    iniset_rpc_backend nova-batch $conf DEFAULT $NOVA_BATCH_API_VHOST
    iniset $conf agent_transport transport_url $(get_transport_url $NOVA_BATCH_AGENT_VHOST)
    iniset $conf database connection $(database_connection_url $NOVA_BATCH_DATABASE)
    configure_keystoneauth $conf $NOVA_BATCH_USER nova
    iniset $conf nova region_name $REGION_NAME
    iniset $conf placement auth_section nova
    iniset $conf placement region_name $REGION_NAME
    configure_nova_batch_filter
}

# Put the filter right before Nova's application, in every pipeline that ends there, once
function configure_nova_batch_filter {
    local paste=$NOVA_API_PASTE_INI

    sed -i -E "/ $NOVA_BATCH_FILTER $NOVA_BATCH_APP *$/! \
        s/^([a-z0-9_]+ *=.*) $NOVA_BATCH_APP *$/\1 $NOVA_BATCH_FILTER $NOVA_BATCH_APP/" $paste
    iniset $paste filter:$NOVA_BATCH_FILTER paste.filter_factory \
        nova_batch_migrate.api.filter:filter_factory
    iniset $paste filter:$NOVA_BATCH_FILTER config_file $NOVA_BATCH_CONF
}

function remove_nova_batch_filter {
    local paste=$NOVA_API_PASTE_INI

    if [[ ! -f $paste ]]; then
        return
    fi
    sed -i -e "s/ $NOVA_BATCH_FILTER $NOVA_BATCH_APP/ $NOVA_BATCH_APP/" $paste
    # The section ends where the next one begins
    sed -i -e "/^\[filter:$NOVA_BATCH_FILTER\]/,/^\[/ { /^\[filter:$NOVA_BATCH_FILTER\]/d; /^\[/! d; }" \
        $paste
}

function configure_nova_batch_agent {
    local conf=$NOVA_BATCH_AGENT_CONF

    _init_nova_batch_conf $conf $NOVA_BATCH_STATE_PATH/agent
    iniset_rpc_backend nova-batch $conf DEFAULT $NOVA_BATCH_AGENT_VHOST
    iniset $conf agent nova_config_files $NOVA_CONF,$NOVA_CPU_CONF
    iniset $conf agent fingerprint_secret ${NOVA_BATCH_FINGERPRINT_SECRET:-$SERVICE_PASSWORD}
    # Guest memory is read by a helper of its own; the agent itself needs no privilege but libvirt's
    iniset $conf nova_batch_memory helper_command \
        "sudo $(get_python_exec_prefix)/privsep-helper --config-file $conf"
}

function create_nova_batch_accounts {
    # Nova lets administrators only name a destination, reset a state and disable a service
    create_service_user $NOVA_BATCH_USER admin
}

function init_nova_batch {
    rpc_backend_add_vhost $NOVA_BATCH_API_VHOST
    rpc_backend_add_vhost $NOVA_BATCH_AGENT_VHOST
    recreate_database $NOVA_BATCH_DATABASE
    $(get_python_exec_prefix)/nova-batch-manage --config-file $NOVA_BATCH_CONF db sync
}

function start_nova_batch {
    local bin_dir
    bin_dir=$(get_python_exec_prefix)

    if is_nova_batch_conductor_enabled; then
        run_process nova-batch-conductor \
            "$bin_dir/nova-batch-conductor --config-file $NOVA_BATCH_CONF"
    fi
    if is_nova_batch_agent_enabled; then
        run_process nova-batch-agent \
            "$bin_dir/nova-batch-agent --config-file $NOVA_BATCH_AGENT_CONF" $LIBVIRT_GROUP
    fi
}

function stop_nova_batch {
    stop_process nova-batch-agent
    stop_process nova-batch-conductor
}

function cleanup_nova_batch {
    local vhost

    remove_nova_batch_filter
    if is_service_enabled rabbit; then
        for vhost in $NOVA_BATCH_API_VHOST $NOVA_BATCH_AGENT_VHOST; do
            # Gone already where RabbitMQ itself was removed
            sudo rabbitmqctl delete_vhost $vhost || true
        done
    fi
    sudo rm -rf $NOVA_BATCH_CONF_DIR $NOVA_BATCH_STATE_PATH
}

case "$1:$2" in
    stack:install)
        echo_summary "Installing nova-batch-migrate"
        install_nova_batch
        ;;
    stack:post-config)
        echo_summary "Configuring nova-batch-migrate"
        if is_nova_batch_conductor_enabled; then
            create_nova_batch_accounts
            configure_nova_batch_controller
            init_nova_batch
        fi
        if is_nova_batch_agent_enabled; then
            configure_nova_batch_agent
        fi
        ;;
    stack:extra)
        echo_summary "Starting nova-batch-migrate"
        start_nova_batch
        ;;
    unstack:*)
        stop_nova_batch
        ;;
    clean:*)
        cleanup_nova_batch
        ;;
esac

$_XTRACE_NOVA_BATCH
