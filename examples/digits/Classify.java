// Classifies scanned digits through the generated Java loader: `java Classify BUNDLE digits.csv`.

import infc.digits.Digits;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;

/** Reads labelled digits, classifies them in one batch, and counts the right answers. */
public final class Classify {
    private static final int PIXELS = 64;
    private static final int CLASSES = 10;
    private static final float GREY_MAX = 16;

    private Classify() {}

    private static int argmax(float[] values, int from, int to) {
        int best = from;
        for (int i = from + 1; i < to; i++) {
            if (values[i] > values[best]) {
                best = i;
            }
        }
        return best - from;
    }

    /** Prints `sample label prediction` for each digit, then the accuracy. */
    public static void main(String[] arguments) throws IOException {
        if (arguments.length != 2) {
            System.err.println("usage: Classify BUNDLE digits.csv");
            System.exit(2);
        }
        List<String> rows = Files.readAllLines(Path.of(arguments[1]));
        int[] labels = new int[rows.size()];
        float[] images = new float[rows.size() * PIXELS];
        for (int i = 0; i < rows.size(); i++) {
            String[] fields = rows.get(i).split(",");
            labels[i] = Integer.parseInt(fields[0]);
            for (int p = 0; p < PIXELS; p++) {
                images[i * PIXELS + p] = Integer.parseInt(fields[p + 1]) / GREY_MAX;
            }
        }
        float[] logits = new float[rows.size() * CLASSES];
        try (Digits model = Digits.load(Path.of(arguments[0]))) {
            model.run(rows.size(), images, logits);
        }
        int right = 0;
        for (int i = 0; i < rows.size(); i++) {
            int prediction = argmax(logits, i * CLASSES, (i + 1) * CLASSES);
            right += prediction == labels[i] ? 1 : 0;
            System.out.println("sample " + i + " label " + labels[i] + " predicted " + prediction);
        }
        System.out.println("accuracy " + right + "/" + rows.size());
    }
}
