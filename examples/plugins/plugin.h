#pragma once
/* What a host knows of a plugin. It has never heard of phi4flash. */
#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct plugin {
    const char* version; /* of the library inside */
    const char* kernels; /* what it computes with */
    /* NULL where it fails. What is answered, or why there is no answer, goes to `text`, cut to `room` bytes, the last of them 0. */
    void* (*open)(const char* model, char* text, size_t room);
    int (*ask)(void* self, const char* question, char* text, size_t room); /* 0: an answer */
    void (*close)(void* self);
} plugin;

/* The one name that a plugin exports on purpose. */
const plugin* get_plugin(void);

#ifdef __cplusplus
}
#endif
