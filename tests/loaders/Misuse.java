// What can be done wrong with a generated class, and what it says: `Misuse BUNDLE DAMAGED`.
// Run under -Xcheck:jni by test_java.py, which compares the lines printed.

import infc.digits.Digits;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import java.nio.file.Path;
import java.util.concurrent.atomic.AtomicInteger;

public final class Misuse {
    private Misuse() {}

    private interface Attempt {
        void make() throws Exception;
    }

    private static void attempt(String what, Attempt attempt) {
        try {
            attempt.make();
            System.out.println(what + ": fine");
        } catch (NullPointerException error) {
            System.out.println(what + ": NullPointerException");
        } catch (Exception error) {
            String type = error.getClass().getSimpleName();
            System.out.println(what + ": " + type + ": " + error.getMessage());
        }
    }

    private static FloatBuffer floats(int count) {
        return Digits.allocateFloats(count);
    }

    private static ByteBuffer bytes(int count) {
        return ByteBuffer.allocateDirect(count).order(ByteOrder.nativeOrder());
    }

    public static void main(String[] arguments) throws Exception {
        Path bundle = Path.of(arguments[0]);
        attempt("damaged", () -> Digits.load(Path.of(arguments[1])));
        attempt("nothing to build", () -> Digits.build(bundle, new Digits.Options()));
        attempt("absent, to build", () -> Digits.build(Path.of("nowhere"), new Digits.Options()));
        attempt("absent", () -> Digits.load(Path.of("nowhere")));
        attempt("empty path", () -> Digits.load(Path.of("")));
        attempt("threads", () -> Digits.load(bundle, new Digits.Options().threads(-1)));
        attempt("null path", () -> Digits.load((Path) null, new Digits.Options()));
        attempt(
                "hash not checked",
                () ->
                        Digits.load(bundle, new Digits.Options().skipHashCheck(true).threads(1))
                                .close());

        Digits model = Digits.load(bundle, new Digits.Options().threads(1));
        FloatBuffer image = floats(64);
        FloatBuffer logits = floats(10);
        attempt("right", () -> model.run(1, image, logits));
        attempt("heap input", () -> model.run(1, FloatBuffer.allocate(64), logits));
        attempt("heap output", () -> model.run(1, image, FloatBuffer.allocate(10)));
        attempt("small input", () -> model.run(2, image, floats(20)));
        attempt("small output", () -> model.run(2, floats(128), logits));
        attempt("input behind its position", () -> model.run(1, floats(64).position(1), logits));
        attempt("output before its limit", () -> model.run(1, image, floats(10).limit(9)));
        attempt("read-only input", () -> model.run(1, image.asReadOnlyBuffer(), logits));
        attempt("read-only output", () -> model.run(1, image, logits.asReadOnlyBuffer()));
        ByteOrder foreign =
                ByteOrder.nativeOrder() == ByteOrder.LITTLE_ENDIAN
                        ? ByteOrder.BIG_ENDIAN
                        : ByteOrder.LITTLE_ENDIAN;
        attempt("byte order", () -> model.run(1, bytes(256).order(foreign).asFloatBuffer(), logits));
        attempt(
                "alignment",
                () -> {
                    ByteBuffer odd = bytes(260).position(1).slice().order(ByteOrder.nativeOrder());
                    model.run(1, odd.asFloatBuffer(), logits);
                });
        attempt("null input", () -> model.run(1, (FloatBuffer) null, logits));
        attempt("size 0", () -> model.run(0, image, logits));
        attempt("size 9", () -> model.run(9, floats(9 * 64), floats(90)));
        attempt("negative size", () -> model.run(-1, image, logits));
        attempt("huge size", () -> Digits.imageCount(Long.MAX_VALUE));
        attempt("short input array", () -> model.run(1, new float[63], new float[10]));
        attempt("short output array", () -> model.run(1, new float[64], new float[9]));
        attempt("position and limit", () -> samePlaces(model));
        attempt("arrays and buffers", () -> sameAnswers(model));
        attempt("closed meanwhile", () -> closedMeanwhile(bundle));

        model.close();
        attempt("closed", () -> model.run(1, image, logits));
        attempt("closed, arrays", () -> model.run(1, new float[64], new float[10]));
        attempt("closed again", model::close);
    }

    /** A run neither moves a buffer nor writes outside what it was given. */
    private static void samePlaces(Digits model) {
        FloatBuffer image = floats(70).position(3);
        FloatBuffer logits = floats(20).position(5);
        model.run(1, image, logits);
        if (image.position() != 3 || logits.position() != 5 || logits.limit() != 20) {
            throw new IllegalStateException("a buffer was moved");
        }
        for (int i = 0; i < 20; i++) {
            if ((logits.get(i) == 0) == (i >= 5 && i < 15)) {
                throw new IllegalStateException("element " + i + " is " + logits.get(i));
            }
        }
    }

    private static void sameAnswers(Digits model) {
        for (int batch : new int[] {3, 8, 1, 2}) {
            float[] pixels = new float[batch * 64];
            for (int i = 0; i < pixels.length; i++) {
                pixels[i] = (i * 7 % 17) / 16f;
            }
            FloatBuffer image = floats(pixels.length).put(pixels).flip();
            FloatBuffer logits = floats(batch * 10);
            float[] answer = new float[batch * 10 + 1];
            model.run(batch, image, logits);
            model.run(batch, pixels, answer);
            for (int i = 0; i < batch * 10; i++) {
                if (logits.get(i) != answer[i]) {
                    throw new IllegalStateException("batch " + batch + ", element " + i);
                }
            }
            if (answer[batch * 10] != 0) {
                throw new IllegalStateException("written behind the answer");
            }
        }
    }

    /** Closing a model that another thread runs: it ends with an exception, never with a crash. */
    private static void closedMeanwhile(Path bundle) throws InterruptedException {
        for (int round = 0; round < 5; round++) {
            Digits model = Digits.load(bundle, new Digits.Options().threads(1));
            AtomicInteger runs = new AtomicInteger();
            AtomicInteger refusals = new AtomicInteger();
            Thread runner =
                    new Thread(
                            () -> {
                                try {
                                    while (true) {
                                        model.run(1, floats(64), floats(10));
                                        runs.incrementAndGet();
                                    }
                                } catch (IllegalStateException error) {
                                    refusals.incrementAndGet();
                                }
                            });
            runner.start();
            while (runs.get() < 10) {
                Thread.onSpinWait();
            }
            model.close();
            runner.join();
            if (refusals.get() != 1) {
                throw new IllegalStateException("no refusal");
            }
        }
    }
}
