/* The simulation of a group's streams, and accesses followed through a relay's dictionary: what reference.py and
 * stream.py do, operation by operation and in the same order, so that the results are the same to the last bit; tests
 * hold the two against each other, and whoever changes one changes the other. Checks the buffers it is given; holds
 * no state of its own. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* the same numbers stand in stream.py, throttle.py, telemetry.py */
#define PAGE_BYTES 4096.0
#define PAGE_WIRE_BYTES 4104.0
#define ZERO_PAGE_WIRE_BYTES 9.0
#define REFERENCE_BYTES 12.0
#define DEVICE_STATE_BYTES 204800.0
#define ZERO_SCAN_BYTES_PER_SECOND 4294967296.0
#define CAPPED_STEP_SECONDS 0.1
#define FREE_STEP_SECONDS 0.06
#define FINISH_SECONDS 0.01
#define WRITE_SECONDS 0.002
#define LUCKY_DEVIATIONS 1.5
#define LUCKY_ROUNDS 20
#define SLOWED_SHARE 0.7
#define SLOWED_STEP 1.0
#define MOST_ROUNDS 100000
#define EPSILON 1e-9
#define THROTTLE_PERIOD_SECONDS 1.0
#define THROTTLE_SHARE 0.5
#define THROTTLE_FIRST 0.2
#define THROTTLE_MORE 0.1
#define THROTTLE_MOST 0.99
/* in reference.py and learning.py */
#define URGENT_SECONDS 20.0
#define GRACE_SECONDS 0.5
#define LEAST_SHARE 0.05
#define REST_WEIGHT 0.25
#define FIRST_ALONE_SECONDS 10.0
#define BESIDE_PREPARING 2

/* A row of simulation.py's table of loads, column by column; all of them doubles. */
typedef struct {
    double content_pages, zero_pages;
    double rate, working_set, hot_rate, hot_pages;
    double timeout_seconds, auto_converge;
    double disk_bytes, disk_write_rate;
    double period, quiet_begins, quiet_lasts, quiet_factor, busy_factor;
    double relayed, first_round_bytes, later_round_bytes, raw_rate, seconds_per_byte, slowing_seconds;
    double socket_base, socket_seconds, socket_most, socket_room;
    double first_step, steps;
} Load;

typedef struct { double starts, downtime; } Step;

typedef struct { double free, cap, stream_cap, relay; } Link;

typedef struct { double parallel, nova_seconds, before_share, sharing, setup, begins, turns, at_once; } Timing;

enum { SETUP, DISK, MEMORY, LAST, COMPLETED, FAILED };

/* states that were there already, in open addressing; those of another generation are forgotten */
typedef struct { double pages, ahead, downtime; int32_t near; uint32_t generation; } State;
typedef struct { State *at; size_t size, used; uint32_t generation; } Seen;

typedef struct {
    const Load *load;
    const Step *steps;
    int64_t step_count;
    int phase, cycle;
    double seconds, wire_rate, begins, sent, wire, downtime, aborted_at;
    int rounds;
    double setup_left, disk_left, pages_left, first_share, same_share, page, slowing;
    double since_test, since_sync;
    double throttle, throttle_seconds, throttle_sent, throttle_dirtied;
    int high_periods;
    double last_left, finish_left, buffered, ahead;
    int filled;
    Seen seen;
    double repeats_under, rate;
    int repeats, rate_known;
    double step_seconds, room;
    int near_rounds;
    /* around the stream: Nova, the relay's turns */
    double before_left, behind_left, queue, nova_seconds;
    int held, passed_on;
    double held_seconds, urgent_since, rates[2], share, pace;
} Run;

static double least(double a, double b) { return b < a ? b : a; }
static double most(double a, double b) { return b > a ? b : a; }

static double saturating(double rate, double pages, double seconds)
{
    return rate > 0 && pages > 0 ? -pages * expm1(-rate * seconds / pages) : 0.0;
}

static double dirty_pages(const Load *load, double seconds)
{
    return saturating(load->rate, load->working_set, seconds) + saturating(load->hot_rate, load->hot_pages, seconds);
}

static double written_after_sent(const Load *load, double seconds)
{
    const double sets[2][2] = {{load->rate, load->working_set}, {load->hot_rate, load->hot_pages}};
    double written = 0.0, after = 0.0;
    for (int i = 0; i < 2; i++) {
        double rate = sets[i][0], pages = sets[i][1];
        if (rate > 0 && pages > 0 && seconds > 0) {
            double writes = rate * seconds / pages, ever = -expm1(-writes);
            written += pages * ever;
            after += pages * (writes > 1e-6 ? 1.0 - ever / writes : writes / 2);
        }
    }
    return written ? least(1.0, after / written) : 1.0;
}

/* the quiet seconds until then; what Python's divmod does */
static double quiet_until(const Load *load, double at)
{
    double x = at - load->quiet_begins, period = load->period;
    double rest = fmod(x, period), periods = (x - rest) / period;
    if (rest) {
        if ((period < 0) != (rest < 0)) {
            rest += period;
            periods -= 1.0;
        }
    } else
        rest = copysign(0.0, period);
    if (periods) {
        double whole = floor(periods);
        periods = periods - whole > 0.5 ? whole + 1.0 : whole;
    } else
        periods = copysign(0.0, x / period);
    return periods * load->quiet_lasts + least(rest, load->quiet_lasts);
}

static double busy_seconds(const Load *load, double begin, double end)
{
    double quiet = quiet_until(load, end) - quiet_until(load, begin);
    return quiet * load->quiet_factor + (end - begin - quiet) * load->busy_factor;
}

static int64_t steps_begun(const Run *run, double seconds)
{
    int64_t low = 0, high = run->step_count;
    while (low < high) {
        int64_t middle = (low + high) / 2;
        if (seconds < run->steps[middle].starts)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

static double downtime_at(const Run *run, double seconds)
{
    int64_t begun = steps_begun(run, seconds);
    return run->steps[begun > 1 ? begun - 1 : 0].downtime;
}

static double until_change(const Run *run)
{
    int64_t at = steps_begun(run, run->seconds);
    return at < run->step_count ? run->steps[at].starts - run->seconds : INFINITY;
}

static State *seen_place(const Seen *seen, const State *state)
{
    uint64_t bits[3];
    memcpy(bits, state, sizeof bits);
    uint64_t hash = bits[0] * 0x9E3779B97F4A7C15u ^ bits[1] * 0xC2B2AE3D27D4EB4Fu ^ bits[2] ^ (uint64_t)state->near;
    hash = (hash ^ hash >> 29) * 0xBF58476D1CE4E5B9u;
    for (size_t at = hash >> 20;; at++) {
        State *place = &seen->at[at & (seen->size - 1)];
        if (place->generation != seen->generation ||
            (place->pages == state->pages && place->ahead == state->ahead &&
             place->downtime == state->downtime && place->near == state->near))
            return place;
    }
}

/* Return whether the state was there, and note it; -1: no memory. */
static int seen_before(Seen *seen, State state)
{
    if (2 * (seen->used + 1) > seen->size) {
        Seen more = {NULL, seen->size ? 2 * seen->size : 64, seen->used, 1};
        more.at = calloc(more.size, sizeof(State));
        if (!more.at)
            return -1;
        for (size_t i = 0; i < seen->size; i++)
            if (seen->at[i].generation == seen->generation) {
                State *place = seen_place(&more, &seen->at[i]);
                *place = seen->at[i];
                place->generation = more.generation;
            }
        free(seen->at);
        *seen = more;
    }
    State *place = seen_place(seen, &state);
    if (place->generation == seen->generation)
        return 1;
    *place = state;
    place->generation = seen->generation;
    seen->used++;
    return 0;
}

static void seen_forget(Seen *seen)
{
    seen->generation++;
    seen->used = 0;
}

/* Python's round(value, 1) */
static double tenths(double value)
{
    double scaled = value * 10.0, whole = rint(scaled);
    /* where the product's own rounding is far from deciding between two tenths, the quotient is the double that is
     * nearest to the right one */
    if (fabs(scaled) < 1e12 && fabs(fabs(scaled - whole) - 0.5) > 1e-3)
        return whole / 10.0;
    char *text = PyOS_double_to_string(value, 'f', 1, 0, NULL);
    double found = text ? PyOS_string_to_double(text, NULL, NULL) : value;
    PyMem_Free(text);
    return found;
}

static void mix(Run *run, double first_share, double same_share)
{
    const Load *load = run->load;
    run->first_share = first_share;
    run->same_share = same_share;
    run->page = !load->relayed ? PAGE_WIRE_BYTES :
                first_share * load->first_round_bytes + same_share * REFERENCE_BYTES +
                (1.0 - first_share - same_share) * load->later_round_bytes;
}

static double unslowed(const Run *run, double rate)
{
    const Load *load = run->load;
    if (load->disk_bytes > 0)
        rate = most(0.0, rate - load->disk_write_rate);
    if (!load->relayed)
        return rate;
    rate = least(rate, load->raw_rate / PAGE_WIRE_BYTES * run->page);
    if (run->rounds || !load->seconds_per_byte)
        return rate;
    return rate * run->page / (run->page + rate * PAGE_WIRE_BYTES * load->seconds_per_byte);
}

static double memory_rate(const Run *run, double rate)
{
    double fast = unslowed(run, rate);
    if (!run->slowing || run->rounds)
        return fast;
    double taken = run->pages_left * ((1.0 - exp(-SLOWED_STEP)) / SLOWED_STEP) / run->slowing;
    double offered = (run->wire_rate ? run->wire_rate : rate) / PAGE_WIRE_BYTES;
    return least(fast, most(taken, offered) * run->page);
}

static double mirror_rate(const Run *run)
{
    return run->load->disk_bytes > 0 ? run->load->disk_write_rate : 0.0;
}

static double until_slower(const Run *run, double rate)
{
    if (!run->slowing || run->rounds)
        return INFINITY;
    double fast = unslowed(run, rate) / run->page;
    double left = run->pages_left - fast * run->slowing;
    return left > 1e-6 * fast ? left / fast : SLOWED_STEP * run->slowing;
}

static double switchover_pages(const Run *run, double rate)
{
    double taken = run->load->relayed ? memory_rate(run, rate) * PAGE_WIRE_BYTES / run->page : rate;
    return downtime_at(run, run->seconds) * taken / PAGE_BYTES;
}

static void count(Run *run, double raw, double wire)
{
    run->sent += raw;
    run->wire += wire;
}

static void send_pages(Run *run, double pages)
{
    pages = least(pages, run->pages_left);
    run->pages_left -= pages;
    count(run, pages * PAGE_WIRE_BYTES, pages * run->page);
    run->throttle_sent += pages;
}

static void fill_socket(Run *run, double rate)
{
    const Load *load = run->load;
    double wanted = run->room ? least(load->socket_most, load->socket_base + load->socket_seconds * rate) : 0.0;
    run->buffered = least(wanted, run->pages_left * run->page);
    run->filled = 1;
    send_pages(run, run->buffered / run->page);
}

static double wait_memory(Run *run, double rate)
{
    if (!run->filled)
        fill_socket(run, rate);
    double change = until_change(run), speed = memory_rate(run, rate), page = run->page;
    if (run->repeats || speed <= 0)
        return change;
    double spare = run->pages_left - switchover_pages(run, rate);
    double need = most(0.0, (spare * page + run->ahead) / speed);
    double step = run->step_seconds, passed = run->since_test;
    double tests = most(floor(passed / step + EPSILON) + 1, ceil((passed + need) / step - EPSILON));
    double wait = tests * step - passed;
    if (run->room) {
        double left = run->pages_left * page + run->ahead - run->room;
        wait = least(wait, most(WRITE_SECONDS, left / speed));
    }
    return least(least(change, wait), until_slower(run, rate));
}

/* Stream.next_event */
static double stream_wait(Run *run, double rate, double last_rate)
{
    const Load *load = run->load;
    double wait = INFINITY, net;
    if (!run->rate_known || rate != run->rate) {
        run->rate = rate;
        run->rate_known = 1;
        run->repeats = 0;
        seen_forget(&run->seen);
        run->step_seconds = rate < last_rate ? CAPPED_STEP_SECONDS : FREE_STEP_SECONDS;
        run->room = rate < last_rate ? 0.0 : load->socket_room;
    }
    switch (run->phase) {
    case SETUP:
        wait = run->setup_left;
        break;
    case DISK:
        net = rate - load->disk_write_rate;
        wait = net > 0 ? run->disk_left / net : INFINITY;
        break;
    case MEMORY:
        wait = wait_memory(run, rate);
        break;
    case LAST:
        return run->last_left / last_rate + run->finish_left;
    }
    return least(wait, most(0.0, load->timeout_seconds - run->seconds));
}

static double dirtied_pages(const Run *run)
{
    double seconds = run->since_sync;
    if (run->cycle) {
        double end = run->begins + run->seconds;
        seconds = busy_seconds(run->load, end - seconds, end);
    }
    if (run->load->auto_converge)
        seconds *= 1.0 - run->throttle;
    return dirty_pages(run->load, seconds);
}

/* Throttle.dirtied */
static void throttle(Run *run, double dirtied)
{
    run->throttle_dirtied += dirtied;
    if (run->throttle_seconds < THROTTLE_PERIOD_SECONDS)
        return;
    if (run->throttle_dirtied > THROTTLE_SHARE * run->throttle_sent)
        run->high_periods++;
    if (run->high_periods >= 2) {
        run->high_periods = 0;
        run->throttle = run->throttle == 0.0 ? THROTTLE_FIRST : least(THROTTLE_MOST, run->throttle + THROTTLE_MORE);
    }
    run->throttle_seconds = run->throttle_sent = run->throttle_dirtied = 0.0;
}

/* Stream._least */
static double luckiest(Run *run, double left, double dirtied, double limit)
{
    if (!run->room || left + dirtied > 2.0 * limit)
        return left + dirtied;
    run->near_rounds++;
    double lucky = LUCKY_DEVIATIONS * least(1.0, (double)(run->near_rounds - 1) / LUCKY_ROUNDS);
    double all = run->load->working_set + run->load->hot_pages;
    return most(0.0, left - lucky * sqrt(all / 2.0)) + most(0.0, dirtied - lucky * sqrt(dirtied));
}

static void stop_guest(Run *run)
{
    double pages = run->pages_left, page = run->page;
    count(run, pages * PAGE_WIRE_BYTES + DEVICE_STATE_BYTES, pages * page + DEVICE_STATE_BYTES);
    run->last_left = pages * page + run->buffered + run->ahead + DEVICE_STATE_BYTES;
    run->finish_left = FINISH_SECONDS;
    run->phase = LAST;
}

/* Stream._sync; -1: no memory */
static int read_log(Run *run, double rate)
{
    const Load *load = run->load;
    double dirtied = dirtied_pages(run), all = load->working_set + load->hot_pages;
    if (all > 0)
        dirtied *= 1.0 - least(1.0, run->pages_left / all);
    double limit = switchover_pages(run, rate);
    double remains = luckiest(run, run->pages_left, dirtied, limit);
    double first = run->first_share * run->pages_left, same = run->same_share * run->pages_left;
    if (!run->rounds)
        same += dirtied * (1.0 - written_after_sent(load, run->since_sync));
    run->pages_left += dirtied;
    double left = most(run->pages_left, EPSILON);
    mix(run, first / left, same / left);
    run->since_sync = 0.0;
    run->rounds++;
    if (load->auto_converge)
        throttle(run, dirtied);
    if (remains < limit || remains <= 0) {
        run->pages_left = least(run->pages_left, limit);
        stop_guest(run);
        return 0;
    }
    if (!load->auto_converge && !run->cycle) {
        double downtime = downtime_at(run, run->seconds);
        int near = run->near_rounds < LUCKY_ROUNDS + 1 ? run->near_rounds : LUCKY_ROUNDS + 1;
        int before = seen_before(&run->seen, (State){tenths(run->pages_left), rint(run->ahead), downtime, near, 0});
        if (before < 0)
            return -1;
        if (before) {
            run->repeats = 1;
            run->repeats_under = downtime;
        }
    }
    if (run->rounds >= MOST_ROUNDS)
        run->phase = FAILED;
    return 0;
}

static int pass_memory(Run *run, double seconds, double rate)
{
    count(run, seconds * mirror_rate(run), seconds * mirror_rate(run));
    double speed = memory_rate(run, rate);
    if (run->repeats) {
        double wire = seconds * speed;
        count(run, wire * PAGE_WIRE_BYTES / run->page, wire);
        run->repeats = downtime_at(run, run->seconds) == run->repeats_under;
        return 0;
    }
    run->since_test += seconds;
    run->since_sync += seconds;
    run->throttle_seconds += seconds;
    double paid = least(run->ahead, seconds * speed);
    run->ahead -= paid;
    send_pages(run, (seconds * speed - paid) / run->page);
    double left = run->pages_left * run->page;
    int exhausted = run->room > 0 && left + run->ahead <= run->room + 1.0;
    if (exhausted) {
        run->ahead += left;
        send_pages(run, run->pages_left);
    }
    double tests = run->since_test / run->step_seconds;
    /* QEMU also tests when nothing is left, whatever the downtime limit is */
    if ((exhausted || fabs(tests - rint(tests)) < 1e-6)
        && (run->pages_left <= 0 || run->pages_left < switchover_pages(run, rate))) {
        run->since_test = 0.0;
        return read_log(run, rate);
    }
    return 0;
}

/* Stream.advance; -1: no memory */
static int stream_advance(Run *run, double seconds, double rate, double last_rate)
{
    const Load *load = run->load;
    run->seconds += seconds;
    switch (run->phase) {
    case SETUP:
        run->setup_left -= seconds;
        if (run->setup_left <= EPSILON)
            run->phase = run->disk_left > 0 ? DISK : MEMORY;
        break;
    case DISK:
        count(run, seconds * rate, seconds * rate);
        run->disk_left -= seconds * (rate - load->disk_write_rate);
        if (run->disk_left <= 1.0)
            run->phase = MEMORY;
        break;
    case MEMORY:
        if (pass_memory(run, seconds, rate) < 0)
            return -1;
        break;
    case LAST:
        run->downtime += seconds;
        run->last_left -= seconds * last_rate;
        if (run->last_left < 0) {
            run->finish_left += run->last_left / last_rate;
            run->last_left = 0.0;
        }
        if (run->finish_left <= EPSILON)
            run->phase = COMPLETED;
        break;
    }
    if (run->phase <= MEMORY && run->seconds >= load->timeout_seconds - EPSILON) {
        run->aborted_at = load->timeout_seconds;
        run->phase = FAILED;
    }
    return 0;
}

static int transferring(const Run *run)
{
    return run->phase == DISK || run->phase == MEMORY || run->phase == LAST;
}

static int in_later_rounds(const Run *run)
{
    return run->phase == LAST || (run->phase == MEMORY && run->rounds > 0);
}

static double wanted_rate(const Run *run, double rate)
{
    return run->phase == MEMORY ? memory_rate(run, rate) + mirror_rate(run) : rate;
}

static int nearly_done(const Run *run, double rate)
{
    if (run->phase != MEMORY || run->rounds)
        return in_later_rounds(run);
    return run->slowing > 0 && wanted_rate(run, rate) < SLOWED_SHARE * unslowed(run, rate);
}

static int in_nova(const Run *run)
{
    return run->before_left > 0 || (run->behind_left > 0 && run->phase == COMPLETED);
}

static double nova_pace(const Run *run, double sharing, double before, double active)
{
    if (!sharing || !in_nova(run))
        return 1.0;
    double beside = run->before_left > 0 ? before - 1 + REST_WEIGHT * (active - before) : active - 1;
    return 1.0 / (1.0 + sharing * beside);
}

static double run_wait(Run *run)
{
    if (in_nova(run))
        return (run->before_left ? run->before_left : run->behind_left) / run->pace;
    if (run->held)
        return most(0.0, run->load->timeout_seconds - run->seconds - run->held_seconds);
    return stream_wait(run, run->rates[0], run->rates[1]);
}

static int go_on(Run *run)
{
    int failed = 0;
    run->held = 0;
    if (run->held_seconds) {
        stream_wait(run, 0.0, 0.0);
        failed = stream_advance(run, run->held_seconds, 0.0, 0.0);
        run->held_seconds = 0.0;
    }
    return failed;
}

static int run_advance(Run *run, double step)
{
    if (in_nova(run)) {
        run->nova_seconds += step;
        double left = (run->before_left ? run->before_left : run->behind_left) - step * run->pace;
        left = left < 1e-9 ? 0.0 : left;
        if (run->before_left)
            run->before_left = left;
        else
            run->behind_left = left;
        return 0;
    }
    if (!run->held)
        return stream_advance(run, step, run->rates[0], run->rates[1]);
    run->held_seconds += step;
    return run_wait(run) <= 1e-6 ? go_on(run) : 0;
}

static int urgent(const Run *run, double now)
{
    return in_later_rounds(run) && now - run->urgent_since < URGENT_SECONDS;
}

/* Give each stream in its later rounds its part, and the others nothing; 0: there are none. */
static int share_urgent(Run **active, int here, double now, double rate)
{
    int streams = 0;
    for (int i = 0; i < here; i++)
        streams += urgent(active[i], now);
    for (int i = 0; i < here; i++)
        if (urgent(active[i], now))
            active[i]->share = rate / streams;
    return streams;
}

/* Give the passed-on ones what they want, and the rest to the one whose turn it is. */
static void share_in_turn(Run **active, int here, double rate, Run **turn)
{
    int late = 0, has_turn = 0, awaited = 0;
    Run *fresh = NULL;
    for (int i = 0; i < here; i++) {
        Run *run = active[i];
        if (!transferring(run)) {
            /* one that goes before the first of those there, and is about to come */
            if (!fresh && !in_nova(run) && run->phase == SETUP && run->setup_left <= GRACE_SECONDS)
                awaited = 1;
            continue;
        }
        late += run->passed_on;
        if (!run->passed_on) {
            fresh = fresh ? fresh : run;
            has_turn |= run == *turn;
        }
    }
    double left = rate;
    int rest = late;
    for (int i = 0; i < here; i++)
        if (transferring(active[i]) && active[i]->passed_on) {
            active[i]->share = least(wanted_rate(active[i], rate), left / rest--);
            left -= active[i]->share;
        }
    if (fresh && !has_turn)
        *turn = awaited ? NULL : fresh;
    if (fresh && *turn && left > LEAST_SHARE * rate)
        (*turn)->share = left;
    else if (late == 1)
        for (int i = 0; i < here; i++)
            if (transferring(active[i]) && active[i]->passed_on)
                active[i]->share = rate;
}

/* _Turns.share; -1: no memory */
static int share(Run **active, int here, double now, double rate, Run **turn)
{
    for (int i = 0; i < here; i++) {
        Run *run = active[i];
        run->share = 0.0;
        if (!transferring(run))
            continue;
        run->wire_rate = rate;
        if (run->passed_on || nearly_done(run, rate))
            run->passed_on = 1;
        if (in_later_rounds(run) && isnan(run->urgent_since))
            run->urgent_since = now;
    }
    if (!share_urgent(active, here, now, rate))
        share_in_turn(active, here, rate, turn);
    for (int i = 0; i < here; i++) {
        Run *run = active[i];
        if (!transferring(run))
            continue;
        if (run->share <= 0) {
            run->held = 1;
            continue;
        }
        if (go_on(run) < 0)
            return -1;
        run->rates[0] = run->rates[1] = run->share;
    }
    return 0;
}

static void link_rates(const Link *link, int streams, double *rates)
{
    if (link->relay) {
        rates[0] = rates[1] = least(link->free, link->cap);
        return;
    }
    streams = streams > 1 ? streams : 1;
    rates[0] = least(link->stream_cap, least(link->free, link->cap) / streams);
    rates[1] = link->free / streams;
}

static void begin(Run *run, const Load *load, const Step *steps, const Timing *timing)
{
    *run = (Run){.load = load, .steps = steps + (int64_t)load->first_step, .step_count = (int64_t)load->steps};
    run->phase = SETUP;
    run->cycle = load->period > 0 && !isnan(timing->begins);
    run->aborted_at = run->urgent_since = NAN;
    run->queue = INFINITY;
    run->setup_left = timing->setup + load->zero_pages * PAGE_BYTES / ZERO_SCAN_BYTES_PER_SECOND;
    run->disk_left = load->disk_bytes;
    run->pages_left = load->content_pages + load->zero_pages * ZERO_PAGE_WIRE_BYTES / PAGE_WIRE_BYTES;
    mix(run, 1.0, 0.0);
    if (load->relayed && load->content_pages + load->zero_pages > 0)
        run->slowing = load->slowing_seconds * load->content_pages / (load->content_pages + load->zero_pages);
    run->step_seconds = CAPPED_STEP_SECONDS;
    run->before_left = timing->nova_seconds * timing->before_share;
    run->behind_left = timing->nova_seconds * (1 - timing->before_share);
}

/* From event to event until all have ended; -1: no memory */
static int follow(Run *runs, Run **active, Py_ssize_t count, const Link *link, const Timing *timing)
{
    Py_ssize_t next = 0;
    int here = 0, turns = link->relay && timing->turns;
    double now = 0.0, rates[2], before = timing->nova_seconds * timing->before_share;
    double at_once = isinf(timing->at_once) ? timing->at_once : 1.0;
    Run *turn = NULL;
    while (next < count || here) {
        int moving = 0, at_start = 0, to_end = 0, kept = 0;
        for (int i = 0; i < here; i++) {
            at_start += active[i]->before_left > 0;
            to_end += active[i]->phase != COMPLETED;
        }
        if (at_start < next || now >= FIRST_ALONE_SECONDS)
            at_once = timing->at_once;
        while (next < count && here < timing->parallel && at_start < at_once &&
               to_end < timing->at_once + BESIDE_PREPARING) {
            Run *run = &runs[next++];
            at_start += run->before_left > 0;
            to_end++;
            run->queue = now;
            run->begins = (isnan(timing->begins) ? 0.0 : timing->begins) + now + before;
            active[here++] = run;
        }
        for (int i = 0; i < here; i++)
            moving += transferring(active[i]);
        link_rates(link, moving, rates);
        if (turns && share(active, here, now, rates[0], &turn) < 0)
            return -1;
        for (int i = 0; i < here; i++) {
            if (!turns || !transferring(active[i]))
                memcpy(active[i]->rates, rates, sizeof rates);
        }
        double step = INFINITY;
        for (int i = 0; i < here; i++) {
            active[i]->pace = nova_pace(active[i], timing->sharing, at_start, here);
            step = least(step, run_wait(active[i]));
        }
        if (next < count && at_once < timing->at_once)
            step = least(step, FIRST_ALONE_SECONDS - now);
        for (int i = 0; i < here; i++)
            if (isinf(step))
                /* nothing will change any more, with the link as it is shared now */
                active[i]->phase = FAILED;
            else if (run_advance(active[i], step) < 0)
                return -1;
        now += isinf(step) ? 0.0 : step;
        for (int i = 0; i < here; i++) {
            Run *run = active[i];
            if (run->phase != FAILED && (run->phase != COMPLETED || run->behind_left > 0))
                active[kept++] = run;
        }
        here = kept;
    }
    return 0;
}

static PyObject *results(const Run *runs, Py_ssize_t count)
{
    PyObject *result = PyList_New(count);
    for (Py_ssize_t i = 0; result && i < count; i++) {
        const Run *run = &runs[i];
        PyObject *aborted = isnan(run->aborted_at) ? Py_NewRef(Py_None) : PyFloat_FromDouble(run->aborted_at);
        PyObject *row = !aborted ? NULL : Py_BuildValue(
            "(OdddddidN)", run->phase == COMPLETED ? Py_True : Py_False, run->queue, run->nova_seconds,
            run->seconds, run->sent, run->wire, run->rounds, run->downtime, aborted);
        if (row)
            PyList_SET_ITEM(result, i, row);
        else
            Py_CLEAR(result);
    }
    return result;
}

static int tables(const Py_buffer *b)
{
    const Load *loads = b[0].buf;
    const Timing *timing = b[3].buf;
    if (b[0].len % (Py_ssize_t)sizeof(Load) || b[0].len / (Py_ssize_t)sizeof(Load) >= 1 << 24 ||
        b[2].len != sizeof(Link) || b[3].len != sizeof(Timing))
        return 0;
    for (int i = 0; i < 4; i++)
        if (b[i].len && (uintptr_t)b[i].buf % sizeof(double))
            return 0;
    double steps = (double)(b[1].len / (Py_ssize_t)sizeof(Step));
    for (Py_ssize_t i = 0; i < b[0].len / (Py_ssize_t)sizeof(Load); i++)
        if (!(loads[i].first_step >= 0 && loads[i].steps >= 1 && loads[i].first_step + loads[i].steps <= steps))
            return 0;
    return timing->parallel >= 1 && timing->at_once >= 1;
}

/* simulate(loads, steps, link, timing): arrays of doubles, as simulation.py fills them
 * -> [(completed, queue, nova, stream seconds, sent, wire bytes, rounds, downtime, aborted at or None)] */
static PyObject *simulate(PyObject *self, PyObject *args)
{
    Py_buffer b[4] = {{0}};
    Run *runs = NULL, **active = NULL;
    PyObject *result = NULL;
    Py_ssize_t count = 0;
    if (!PyArg_ParseTuple(args, "y*y*y*y*", &b[0], &b[1], &b[2], &b[3]))
        return NULL;
    if (!tables(b)) {
        PyErr_SetString(PyExc_ValueError, "these are no tables of a simulation");
        goto out;
    }
    count = b[0].len / (Py_ssize_t)sizeof(Load);
    runs = calloc(count + 1, sizeof *runs);
    active = calloc(count + 1, sizeof *active);
    if (!runs || !active) {
        PyErr_NoMemory();
        goto out;
    }
    for (Py_ssize_t i = 0; i < count; i++)
        begin(&runs[i], (const Load *)b[0].buf + i, b[1].buf, b[3].buf);
    if (follow(runs, active, count, b[2].buf, b[3].buf) < 0)
        PyErr_NoMemory();
    else
        result = results(runs, count);
out:
    for (Py_ssize_t i = 0; runs && i < count; i++)
        free(runs[i].seen.at);
    free(runs);
    free(active);
    for (int i = 0; i < 4; i++)
        if (b[i].obj)
            PyBuffer_Release(&b[i]);
    return result;
}

/* follow_ring(last, owners, sends, kept_for, slots, patience, missed): arrays of int64, doubles and int64 for each
 * owner, and bytes to fill; what reference.follow_ring does */
static PyObject *follow_ring(PyObject *self, PyObject *args)
{
    Py_buffer b[5] = {{0}};
    long long slots;
    double patience;
    int64_t *of_slots = NULL, *let_in = NULL, *accesses = NULL;
    PyObject *result = NULL;
    if (!PyArg_ParseTuple(args, "y*y*y*y*Ldw*", &b[0], &b[1], &b[2], &b[4], &slots, &patience, &b[3]))
        return NULL;
    const int64_t *last = b[0].buf, *owners = b[1].buf, *kept_for = b[4].buf;
    const double *sends = b[2].buf;
    char *missed = b[3].buf;
    int64_t count = b[0].len / 8, owned = b[2].len / 8;
    int right = b[1].len == b[0].len && b[3].len == count && b[4].len == b[2].len && slots >= 0 && slots <= count;
    for (int64_t owner = 0; right && owner < owned; owner++)
        right = kept_for[owner] >= owner && kept_for[owner] < owned;
    for (int64_t at = 0; right && at < count; at++)
        right = owners[at] >= 0 && owners[at] < owned && last[at] >= -1 && last[at] < at;
    if (!right) {
        PyErr_SetString(PyExc_ValueError, "these are no accesses to a ring");
        goto out;
    }
    of_slots = malloc((slots + 1) * sizeof *of_slots);
    let_in = malloc((count + 1) * sizeof *let_in);
    accesses = calloc(3 * owned + 1, sizeof *accesses);
    if (!of_slots || !let_in || !accesses) {
        PyErr_NoMemory();
        goto out;
    }
    int64_t head = 0, *followed = accesses + owned, *found = followed + owned;
    for (int64_t slot = 0; slot < slots; slot++)
        of_slots[slot] = -1;
    for (int64_t at = 0; at < count; at++)
        accesses[owners[at]]++;
    for (int64_t at = 0; at < count; at++) {
        int64_t owner = owners[at], number = last[at] >= 0 ? let_in[last[at]] : -1;
        let_in[at] = -1;
        missed[at] = !(number >= 0 && head - number <= slots);
        if (!missed[at]) {
            let_in[at] = number;
            found[owner]++;
        } else {
            double sent = (double)followed[owner] * sends[owner] / (double)accesses[owner];
            if (head < slots || (slots && sent >= (double)slots * patience && 2.0 * (double)found[owner] < sent &&
                                 kept_for[of_slots[head % slots]] < owner)) {
                let_in[at] = head;
                of_slots[head % slots] = owner;
                head++;
            }
        }
        followed[owner]++;
    }
    result = Py_NewRef(Py_None);
out:
    free(of_slots);
    free(let_in);
    free(accesses);
    for (int i = 0; i < 5; i++)
        if (b[i].obj)
            PyBuffer_Release(&b[i]);
    return result;
}

static PyMethodDef methods[] = {
    {"follow_ring", follow_ring, METH_VARARGS, "Tell which accesses miss a ring of contents."},
    {"simulate", simulate, METH_VARARGS, "Run the streams of a group until each has completed or failed."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_speed", "Inner loops of planning.", -1, methods};

PyMODINIT_FUNC PyInit__speed(void)
{
    return PyModule_Create(&module);
}
