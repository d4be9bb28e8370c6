// Finds faces through the generated Java loader: `java Faces BUNDLE PREPARED`, where PREPARED is
// what prepare.py wrote. Prints: photo x1 y1 x2 y2 score, the corners in whole pixels of the photo,
// best score first.

import infc.version_rfb_320.VersionRfb320;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.Locale;

/** Decoding and non-maximum suppression around the model; the loader does the rest. */
public final class Faces {
    private static final double SCORE_THRESHOLD = 0.7;
    private static final double IOU_THRESHOLD = 0.3;

    private Faces() {}

    /** A face: corners as fractions of the photo's width and height. */
    private static final class Face {
        final double x1;
        final double y1;
        final double x2;
        final double y2;
        final double score;

        Face(FloatBuffer boxes, int row, double score) {
            this.x1 = boxes.get(4 * row);
            this.y1 = boxes.get(4 * row + 1);
            this.x2 = boxes.get(4 * row + 2);
            this.y2 = boxes.get(4 * row + 3);
            this.score = score;
        }

        double area() {
            return (x2 - x1) * (y2 - y1);
        }

        /** Intersection over union. */
        double overlap(Face other) {
            double width = Math.min(x2, other.x2) - Math.max(x1, other.x1);
            double height = Math.min(y2, other.y2) - Math.max(y1, other.y1);
            double shared = Math.max(width, 0) * Math.max(height, 0);
            return shared / (area() + other.area() - shared);
        }

        /** The printed line, rounded in integers: the languages' own formats round ties apart. */
        String line(String photo, int width, int height) {
            long thousandths = (long) Math.floor(score * 1000 + 0.5);
            return String.format(
                    Locale.ROOT,
                    "%s %d %d %d %d %d.%03d",
                    photo,
                    pixel(x1 * width),
                    pixel(y1 * height),
                    pixel(x2 * width),
                    pixel(y2 * height),
                    thousandths / 1000,
                    thousandths % 1000);
        }

        private static long pixel(double value) {
            return (long) Math.floor(value + 0.5);
        }
    }

    private static List<Face> candidates(FloatBuffer scores, FloatBuffer boxes) {
        List<Face> found = new ArrayList<>();
        for (int row = 0; row < scores.capacity() / 2; row++) {
            double score = scores.get(2 * row + 1);
            if (score > SCORE_THRESHOLD) {
                found.add(new Face(boxes, row, score));
            }
        }
        return found;
    }

    /** Greedy non-maximum suppression, best score first. */
    private static List<Face> keepBest(List<Face> faces) {
        faces.sort(Comparator.comparingDouble((Face face) -> -face.score));
        List<Face> kept = new ArrayList<>();
        for (Face face : faces) {
            if (kept.stream().allMatch(better -> better.overlap(face) <= IOU_THRESHOLD)) {
                kept.add(face);
            }
        }
        return kept;
    }

    private static FloatBuffer floats(int count) {
        return ByteBuffer.allocateDirect(4 * count).order(ByteOrder.nativeOrder()).asFloatBuffer();
    }

    private static void read(Path file, FloatBuffer into) throws IOException {
        byte[] bytes = Files.readAllBytes(file);
        into.clear();
        into.put(ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer());
        into.flip();
    }

    /** Prints the faces of every photo. */
    public static void main(String[] arguments) throws IOException {
        if (arguments.length != 2) {
            System.err.println("usage: Faces BUNDLE PREPARED");
            System.exit(2);
        }
        Path prepared = Path.of(arguments[1]);
        FloatBuffer image = floats(VersionRfb320.INPUT_COUNT);
        FloatBuffer scores = floats(VersionRfb320.SCORES_COUNT);
        FloatBuffer boxes = floats(VersionRfb320.BOXES_COUNT);
        try (VersionRfb320 model = VersionRfb320.load(Path.of(arguments[0]))) {
            for (String row : Files.readAllLines(prepared.resolve("photos.txt"))) {
                String[] fields = row.split(" ");
                read(prepared.resolve(fields[0] + ".f32"), image);
                model.run(image, scores, boxes);
                int width = Integer.parseInt(fields[1]);
                int height = Integer.parseInt(fields[2]);
                for (Face face : keepBest(candidates(scores, boxes))) {
                    System.out.println(face.line(fields[0], width, height));
                }
            }
        }
    }
}
