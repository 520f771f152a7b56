/* power_of_two.c - of two prefill daemons drawn at random the less loaded, and of two decode daemons
 * paired with it likewise (Mitzenmacher 2001).
 *
 * Nearly as even as looking at all of them, and routers that see the same stale heartbeats do not
 * all run to the same daemon. The dice are the policy's own, so that the simulator replays. */
#include "router/policies/load.h"

static bool same(const bt_router_choice *a, const bt_router_choice *b, bool decode)
{
    return decode ? a->decode == b->decode : a->prefill == b->prefill;
}

/* A choice at random among those whose daemon of the role is (or is not) that of `like`, and with
 * the prefill daemon `prefill` unless NULL. view->choice_count if there is none. */
static uint32_t draw(const bt_router_view *view, bt_rng *rng, const bt_router_choice *prefill,
                     const bt_router_choice *unlike, bool decode)
{
    uint32_t count = 0, chosen = view->choice_count;
    for (uint32_t i = 0; i < view->choice_count; i++) {
        const bt_router_choice *c = &view->choices[i];
        if (prefill != NULL && c->prefill != prefill->prefill) continue;
        if (unlike != NULL && same(c, unlike, decode)) continue;
        if (bt_rng_below(rng, ++count) == 0) chosen = i; /* each with the same chance */
    }
    return chosen;
}

static bool busier(const bt_router_daemon *a, const bt_router_daemon *b, bool decode)
{
    if (!decode && bt_load_tokens(a) != bt_load_tokens(b))
        return bt_load_tokens(a) > bt_load_tokens(b);
    return bt_load_sequences(a) > bt_load_sequences(b);
}

static uint32_t of_two(const bt_router_view *view, bt_rng *rng, const bt_router_choice *prefill,
                       bool decode)
{
    uint32_t a = draw(view, rng, prefill, NULL, decode);
    uint32_t b = draw(view, rng, prefill, &view->choices[a], decode);
    if (b == view->choice_count) return a;
    const bt_router_choice *ca = &view->choices[a], *cb = &view->choices[b];
    const bt_router_daemon *da = &view->daemons[decode ? ca->decode : ca->prefill];
    const bt_router_daemon *db = &view->daemons[decode ? cb->decode : cb->prefill];
    return busier(da, db, decode) ? b : a;
}

static uint32_t choose(const bt_router_view *view, bt_router_policy_state *state)
{
    uint32_t prefill = of_two(view, &state->rng, NULL, false);
    return of_two(view, &state->rng, &view->choices[prefill], true);
}

const bt_router_policy bt_router_power_of_two = {.name = "power_of_two", .choose = choose};
