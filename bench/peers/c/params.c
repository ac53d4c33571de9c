/* Parameters: key=value, whole numbers with bounds; a number of bytes may have a unit, and a switch may be on or off. */
#include "peer.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static Key *find(const Params *params, const char *name, size_t length)
{
    for (Key *key = params->keys; key->name; key++)
        if (strlen(key->name) == length && strncmp(key->name, name, length) == 0)
            return key;
    return NULL;
}

uint64_t get(const Params *params, const char *name)
{
    Key *key = find(params, name, strlen(name));
    if (!key)
        fail("a workload asks for %s, which is not in its list of keys", name);
    return key->value;
}

/* What a unit stands for; 0 if there is no such unit. */
static double factor(const char *unit)
{
    static const struct {
        const char *name;
        double bytes;
    } UNITS[] = {
        {"", 1},           {"B", 1},           {"kB", 1e3},  {"MB", 1e6},  {"GB", 1e9},
        {"KiB", 1 << 10},  {"MiB", 1 << 20},   {"GiB", 1 << 30},
    };
    for (size_t i = 0; i < sizeof UNITS / sizeof *UNITS; i++)
        if (strcmp(unit, UNITS[i].name) == 0)
            return UNITS[i].bytes;
    return 0;
}

static uint64_t number(const Key *key, const char *text)
{
    if (key->max == 1 && (strcmp(text, "on") == 0 || strcmp(text, "off") == 0))
        return strcmp(text, "on") == 0;
    char *end;
    errno = 0;
    bool digit = *text >= '0' && *text <= '9';
    uint64_t value = strtoull(text, &end, 10);
    if (digit && key->seconds)
        value = (uint64_t)(strtod(text, &end) * 1e9);
    else if (digit && (*end == '.' || factor(end) > 1))
        value = (uint64_t)(strtod(text, &end) * factor(end));
    if (!digit || errno || factor(end) == 0)
        fail("%s=%s is not a number", key->name, text);
    if (value < key->min || value > key->max)
        fail("%s is %" PRIu64 ", it must be %" PRIu64 " to %" PRIu64, key->name, value, key->min, key->max);
    return value;
}

static void set(Params *params, const char *setting)
{
    const char *text = strchr(setting, '=');
    if (!text)
        fail("%s is not key=value", setting);
    size_t length = (size_t)(text - setting);
    text++;
    Key *key = find(params, setting, length);
    if (key) {
        key->value = number(key, text);
    } else if (strncmp(setting, "threads=", length + 1) == 0) {
        params->threads = (unsigned)number(&(Key)KEY("threads", 0, 1, MAX_THREADS), text);
    } else if (strncmp(setting, "gc_percent=", length + 1) == 0) {
        params->growth = strcmp(text, "off") == 0 ? GROWTH_OFF : GROWTH_PERCENT;
        if (params->growth == GROWTH_PERCENT)
            params->gc_percent = number(&(Key)KEY("gc_percent", 0, 1, INT32_MAX), text);
    } else if (strncmp(setting, "limit=", length + 1) == 0) {
        params->limit = number(&(Key)KEY("limit", 0, 1, INT64_MAX), text);
    } else {
        fail("there is no key %.*s in this workload", (int)length, setting);
    }
}

void parse(Params *params, int count, char **settings)
{
    for (int i = 0; i < count; i++)
        set(params, settings[i]);
}
