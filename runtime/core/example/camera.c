/* Where is this camera? Frames of a Linux camera (V4L2), or of a file, to places of a map.
 *
 *     export PKG_CONFIG_PATH=ARTIFACT/lib/pkgconfig
 *     cc -O2 camera.c $(pkg-config --cflags --libs tatvpr) -o camera
 *     ./camera ARTIFACT/weights.bin MAP.placemap /dev/video0 WIDTH HEIGHT
 *     ./camera ARTIFACT/weights.bin MAP.placemap FRAMES WIDTH HEIGHT YUYV
 *
 * A camera chooses the format nearest to its own; FRAMES is a file of raw frames without padding, one
 * after another, in the format whose V4L2 name (four letters) follows. Ends with the file, or after
 * 100 frames of a camera.
 */
#include <fcntl.h>
#include <linux/videodev2.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "example.h"

enum { BUFFERS = 3, CAMERA_FRAMES = 100 };

/* How chroma lies behind plane 0. */
enum layout { PACKED, HALF_INTERLEAVED, HALF_PLANES };

typedef struct format {
    uint32_t fourcc;
    uint32_t ours;
    int32_t bytes; /* of a pixel in plane 0 */
    enum layout layout;
    int yuv;
} format;

/* Best first: what a camera gives without converting. */
static const format formats[] = {
    {V4L2_PIX_FMT_YUYV, TATVPR_YUV422, 2, PACKED, 1},
    {V4L2_PIX_FMT_UYVY, TATVPR_UYVY, 2, PACKED, 1},
    {V4L2_PIX_FMT_NV12, TATVPR_NV12, 1, HALF_INTERLEAVED, 1},
    {V4L2_PIX_FMT_NV21, TATVPR_NV21, 1, HALF_INTERLEAVED, 1},
    {V4L2_PIX_FMT_YUV420, TATVPR_I420, 1, HALF_PLANES, 1},
    {V4L2_PIX_FMT_RGB24, TATVPR_RGB888, 3, PACKED, 0},
    {V4L2_PIX_FMT_BGR24, TATVPR_BGR888, 3, PACKED, 0},
    {V4L2_PIX_FMT_RGBA32, TATVPR_RGBA, 4, PACKED, 0},
    {V4L2_PIX_FMT_RGBX32, TATVPR_RGBA, 4, PACKED, 0},
    {V4L2_PIX_FMT_ABGR32, TATVPR_BGRA, 4, PACKED, 0},
    {V4L2_PIX_FMT_XBGR32, TATVPR_BGRA, 4, PACKED, 0},
    {V4L2_PIX_FMT_RGB565, TATVPR_RGB565, 2, PACKED, 0},
    {V4L2_PIX_FMT_GREY, TATVPR_GRAY8, 1, PACKED, 0},
    {V4L2_PIX_FMT_Y10, TATVPR_GRAY10, 2, PACKED, 0},
    {V4L2_PIX_FMT_Y12, TATVPR_GRAY12, 2, PACKED, 0},
    {V4L2_PIX_FMT_Y16, TATVPR_GRAY16, 2, PACKED, 0},
};
#define FORMATS (sizeof(formats) / sizeof(formats[0]))

static const format *format_of(uint32_t fourcc) {
    for (size_t i = 0; i < FORMATS; i++) {
        if (formats[i].fourcc == fourcc) {
            return &formats[i];
        }
    }
    return NULL;
}

/* A frame whose planes begin at `data`; rows of plane 0 are `stride` bytes apart. */
static tatvpr_frame frame_of(const format *f, const uint8_t *data, int32_t width, int32_t height,
                             int32_t stride) {
    tatvpr_frame frame = {.size = sizeof(frame), .format = f->ours};
    frame.width = width;
    frame.height = height;
    frame.planes[0] = data;
    frame.strides[0] = stride;
    const uint8_t *chroma = data + (ptrdiff_t)stride * height;
    if (f->layout == HALF_INTERLEAVED) {
        frame.planes[1] = chroma;
        frame.strides[1] = stride;
    } else if (f->layout == HALF_PLANES) {
        frame.strides[1] = frame.strides[2] = stride / 2;
        frame.planes[1] = chroma;
        frame.planes[2] = chroma + (ptrdiff_t)(stride / 2) * (height / 2);
    }
    return frame;
}

static size_t frame_bytes(const format *f, int32_t stride, int32_t height) {
    const size_t plane = (size_t)stride * (size_t)height;
    return f->layout == PACKED ? plane : plane / 2 * 3;
}

/* ---- where the frames go */

typedef struct finder {
    tatvpr_model model;
    tatvpr_arena arena;
    float *descriptor;
    place_map map;
    tatvpr_options options;
} finder;

static void find(const finder *f, const tatvpr_frame *frame) {
    tatvpr_match best = {.size = sizeof(best)};
    int32_t found = 0;
    check("frame", tatvpr_describe(&f->model, f->arena, frame, &f->options, f->descriptor));
    check("map", tatvpr_journal_search(&f->map.base, added_to(&f->map), &f->model, f->descriptor,
                                       f->options.k, f->options.tokens, &best, 1, &found));
    if (found == 1) {
        print_place(&f->map, &best);
        fflush(stdout);
    }
}

/* ---- a file */

static void from_file(const finder *to, const char *path, int32_t width, int32_t height,
                      const char *name) {
    if (strlen(name) != 4) {
        fail(name, "a V4L2 format has four letters");
    }
    const format *f = format_of(v4l2_fourcc(name[0], name[1], name[2], name[3]));
    if (f == NULL) {
        fail(name, "no format of this library");
    }
    const size_t bytes = frame_bytes(f, width * f->bytes, height);
    uint8_t *data = aligned(bytes);
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        fail(path, strerror(errno));
    }
    size_t got = 0;
    while ((got = fread(data, 1, bytes, file)) == bytes) {
        const tatvpr_frame frame = frame_of(f, data, width, height, width * f->bytes);
        find(to, &frame);
    }
    if (got != 0) {
        fail(path, "ends inside a frame");
    }
    fclose(file);
    free(data);
}

/* ---- a camera */

static void control(int camera, unsigned long request, void *argument, const char *what) {
    while (ioctl(camera, request, argument) != 0) {
        if (errno != EINTR) {
            fail(what, strerror(errno));
        }
    }
}

/* The first of our formats that the camera takes at that size; `set` is what it then gives. */
static const format *negotiate(int camera, int32_t width, int32_t height, struct v4l2_format *set) {
    for (size_t i = 0; i < FORMATS; i++) {
        memset(set, 0, sizeof(*set));
        set->type = V4L2_BUF_TYPE_VIDEO_CAPTURE;
        set->fmt.pix.width = (uint32_t)width;
        set->fmt.pix.height = (uint32_t)height;
        set->fmt.pix.pixelformat = formats[i].fourcc;
        set->fmt.pix.field = V4L2_FIELD_NONE;
        if (ioctl(camera, VIDIOC_TRY_FMT, set) == 0 &&
            set->fmt.pix.pixelformat == formats[i].fourcc) {
            control(camera, VIDIOC_S_FMT, set, "VIDIOC_S_FMT");
            return format_of(set->fmt.pix.pixelformat);
        }
    }
    fail("camera", "gives none of this library's formats (only compressed ones?)");
    return NULL;
}

/* Range and matrix as the driver states them, or as V4L2 says they then are. */
static uint32_t yuv_of(const format *f, const struct v4l2_pix_format *pix) {
    if (!f->yuv) {
        return 0;
    }
    const uint32_t encoding = pix->ycbcr_enc != V4L2_YCBCR_ENC_DEFAULT
                                  ? pix->ycbcr_enc
                                  : (uint32_t)V4L2_MAP_YCBCR_ENC_DEFAULT(pix->colorspace);
    const uint32_t range =
        pix->quantization != V4L2_QUANTIZATION_DEFAULT
            ? pix->quantization
            : (uint32_t)V4L2_MAP_QUANTIZATION_DEFAULT(0, pix->colorspace, encoding);
    return (range == V4L2_QUANTIZATION_LIM_RANGE ? TATVPR_YUV_LIMITED : 0u) |
           (encoding == V4L2_YCBCR_ENC_709 ? TATVPR_YUV_BT709 : 0u);
}

static void from_camera(const finder *to, int camera, int32_t width, int32_t height) {
    struct v4l2_capability can = {0};
    control(camera, VIDIOC_QUERYCAP, &can, "VIDIOC_QUERYCAP");
    const uint32_t needed = V4L2_CAP_VIDEO_CAPTURE | V4L2_CAP_STREAMING;
    const uint32_t has =
        (can.capabilities & V4L2_CAP_DEVICE_CAPS) != 0 ? can.device_caps : can.capabilities;
    if ((has & needed) != needed) {
        fail("camera", "it does not capture video by streaming");
    }
    struct v4l2_format set;
    const format *f = negotiate(camera, width, height, &set);
    const struct v4l2_pix_format *pix = &set.fmt.pix;
    struct v4l2_requestbuffers asked = {.count = BUFFERS};
    asked.type = V4L2_BUF_TYPE_VIDEO_CAPTURE;
    asked.memory = V4L2_MEMORY_MMAP;
    control(camera, VIDIOC_REQBUFS, &asked, "VIDIOC_REQBUFS");
    const uint8_t *mapped[BUFFERS] = {0};
    const uint32_t buffers = asked.count < BUFFERS ? asked.count : BUFFERS;
    for (uint32_t i = 0; i < buffers; i++) {
        struct v4l2_buffer buffer = {.index = i, .type = asked.type, .memory = asked.memory};
        control(camera, VIDIOC_QUERYBUF, &buffer, "VIDIOC_QUERYBUF");
        void *at = mmap(NULL, buffer.length, PROT_READ, MAP_SHARED, camera, buffer.m.offset);
        if (at == MAP_FAILED) {
            fail("mmap", strerror(errno));
        }
        mapped[i] = at;
        control(camera, VIDIOC_QBUF, &buffer, "VIDIOC_QBUF");
    }
    int type = (int)asked.type;
    control(camera, VIDIOC_STREAMON, &type, "VIDIOC_STREAMON");
    const size_t bytes = frame_bytes(f, (int32_t)pix->bytesperline, (int32_t)pix->height);
    for (int shown = 0; shown < CAMERA_FRAMES;) {
        struct v4l2_buffer buffer = {.type = asked.type, .memory = asked.memory};
        control(camera, VIDIOC_DQBUF, &buffer, "VIDIOC_DQBUF");
        if ((buffer.flags & V4L2_BUF_FLAG_ERROR) == 0 && buffer.bytesused >= bytes &&
            buffer.index < buffers) {
            tatvpr_frame frame = frame_of(f, mapped[buffer.index], (int32_t)pix->width,
                                          (int32_t)pix->height, (int32_t)pix->bytesperline);
            frame.yuv = yuv_of(f, pix);
            find(to, &frame);
            shown++;
        }
        control(camera, VIDIOC_QBUF, &buffer, "VIDIOC_QBUF");
    }
    control(camera, VIDIOC_STREAMOFF, &type, "VIDIOC_STREAMOFF");
}

static int32_t side(const char *text) {
    const double pixels = number(text);
    if (!(pixels >= 2 && pixels <= 16384) || pixels != (int32_t)pixels) {
        fail("size", "WIDTH and HEIGHT are 2 to 16384 pixels");
    }
    return (int32_t)pixels;
}

int main(int argc, char **argv) {
    if (argc < 6) {
        fprintf(stderr, "usage: camera WEIGHTS MAP DEVICE WIDTH HEIGHT\n"
                        "       camera WEIGHTS MAP FRAMES WIDTH HEIGHT FORMAT\n");
        return 2;
    }
    const int32_t width = side(argv[4]), height = side(argv[5]);
    finder to = {.model = load_model(argv[1])};
    to.arena = make_arena(&to.model);
    to.map = load_map(argv[2], &to.model);
    tatvpr_model_info info = {.size = sizeof(info)};
    check("model", tatvpr_model_get_info(to.model.program, &info));
    to.descriptor = aligned((size_t)info.descriptor_size * sizeof(float));
    to.options.size = sizeof(to.options);
    to.options.k = 0.2f;
    to.options.tokens = 1.0f;
    struct stat status;
    if (stat(argv[3], &status) != 0) {
        fail(argv[3], strerror(errno));
    }
    if (!S_ISCHR(status.st_mode)) {
        if (argc < 7) {
            fail(argv[3], "a file of raw frames: name their format, such as YUYV");
        }
        from_file(&to, argv[3], width, height, argv[6]);
        return 0;
    }
    const int camera = open(argv[3], O_RDWR);
    if (camera < 0) {
        fail(argv[3], strerror(errno));
    }
    from_camera(&to, camera, width, height);
    close(camera);
    return 0;
}
