/* AMX tiles: 16 rows of 64 bytes, eight of them, all alike.
 *
 * They belong to a thread and to whoever configured them last, so that a task configures them and gives them back.
 */
#ifndef FASTEMBED_RT_AMX_TILES_H
#define FASTEMBED_RT_AMX_TILES_H

#include "vectors.h"

enum {
    TILE_ROWS = 16,
    TILE_BYTES = 64,                        /* of a row */
    TILE_CELLS = TILE_ROWS * LANES
};

typedef struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} TileConfig;

static const _Alignas(64) TileConfig tile_config = {
    .palette = 1,
    .row_bytes = {TILE_BYTES, TILE_BYTES, TILE_BYTES, TILE_BYTES, TILE_BYTES, TILE_BYTES, TILE_BYTES, TILE_BYTES},
    .rows = {TILE_ROWS, TILE_ROWS, TILE_ROWS, TILE_ROWS, TILE_ROWS, TILE_ROWS, TILE_ROWS, TILE_ROWS},
};

#endif
