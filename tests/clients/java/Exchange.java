import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.TreeMap;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * Writes one of everything to a topic, and prints everything that a topic holds, one line a record, so that two brokers can be compared.
 *
 * <p>{@code {"cmd":"write","bootstrap":…,"topic":…,"transactions":true,"days":…}} or {@code {"cmd":"dump","bootstrap":…,"topic":…,"isolation":…}},
 * or, of several topics and each way of reading them, {@code {"cmd":"dumps","bootstrap":…,"topics":[…],"isolations":[…]}}: a line
 * {@code == topic isolation} stands before each.
 */
public final class Exchange {
    private static final String[] CODECS = {"none", "gzip", "snappy", "lz4", "zstd"};

    private static Properties producer(JsonNode task, String codec) {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", task.get("bootstrap").asText());
        settings.put("compression.type", codec);
        return settings;
    }

    private static KafkaProducer<String, String> open(Properties settings) {
        return new KafkaProducer<>(settings, new StringSerializer(), new StringSerializer());
    }

    /** So many days ago; without being told six: in the past, and within the seven days that both brokers keep records by default. */
    private static long firstTimestampMs(JsonNode task) {
        return System.currentTimeMillis() - task.path("days").asLong(6) * 86_400_000L;
    }

    /** Record n: every third without a key, every seventh without a value, every second with headers, timestamps of its own. */
    private static ProducerRecord<String, String> record(String topic, long first, String name, int n) {
        String key = n % 3 == 0 ? null : "key-" + n;
        String value = n % 7 == 0 ? null : name + "-" + n + "-" + "ä".repeat(n % 50);
        ProducerRecord<String, String> record = new ProducerRecord<>(topic, n % 3, first + n * 1000L, key, value);
        if (n % 2 == 0) {
            record.headers().add("number", Integer.toString(n).getBytes()).add("empty", new byte[0]).add("null", null);
        }
        return record;
    }

    private static void write(JsonNode task) {
        String topic = task.get("topic").asText();
        long first = firstTimestampMs(task);
        for (String codec : CODECS) {
            try (KafkaProducer<String, String> producer = open(producer(task, codec))) {
                for (int n = 0; n < 500; n++) producer.send(record(topic, first, codec, n));
            }
            if (!task.get("transactions").asBoolean()) continue;
            Properties settings = producer(task, codec);
            settings.put("transactional.id", "exchange-" + codec);
            try (KafkaProducer<String, String> producer = open(settings)) {
                producer.initTransactions();
                for (int round = 0; round < 4; round++) {
                    producer.beginTransaction();
                    for (int n = 0; n < 100; n++) producer.send(record(topic, first, codec + "-transaction-" + round, n));
                    if (round % 2 == 0) {
                        producer.commitTransaction();
                    } else {
                        producer.flush();
                        producer.abortTransaction();
                    }
                }
            }
        }
    }

    private static String line(ConsumerRecord<String, String> r) {
        StringBuilder line = new StringBuilder();
        line.append(r.partition()).append(' ').append(r.offset()).append(' ').append(r.timestampType()).append(' ').append(r.timestamp());
        line.append(" key=").append(r.key()).append(" value=").append(r.value());
        for (Header h : r.headers()) line.append(' ').append(h.key()).append('=').append(h.value() == null ? "null" : new String(h.value()));
        return line.toString();
    }

    private static void dumps(JsonNode task) {
        for (JsonNode topic : task.get("topics")) {
            for (JsonNode isolation : task.get("isolations")) {
                System.out.println("== " + topic.asText() + " " + isolation.asText());
                dump(task.get("bootstrap").asText(), topic.asText(), isolation.asText());
            }
        }
    }

    private static void dump(String bootstrap, String topic, String isolation) {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", bootstrap);
        settings.put("isolation.level", isolation);
        settings.put("enable.auto.commit", "false");
        Map<Integer, List<String>> lines = new TreeMap<>();
        try (KafkaConsumer<String, String> consumer = new KafkaConsumer<>(settings, new StringDeserializer(), new StringDeserializer())) {
            List<TopicPartition> partitions = new ArrayList<>();
            consumer.partitionsFor(topic).forEach(p -> partitions.add(new TopicPartition(p.topic(), p.partition())));
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            Map<TopicPartition, Long> ends = consumer.endOffsets(partitions);
            while (partitions.stream().anyMatch(p -> consumer.position(p) < ends.get(p))) {
                for (ConsumerRecord<String, String> r : consumer.poll(Duration.ofMillis(200))) {
                    lines.computeIfAbsent(r.partition(), p -> new ArrayList<>()).add(line(r));
                }
            }
            ends.forEach((p, end) -> lines.computeIfAbsent(p.partition(), k -> new ArrayList<>()).add(p.partition() + " ends at " + end));
        }
        lines.values().forEach(list -> list.forEach(System.out::println));
    }

    public static void main(String[] arguments) throws Exception {
        JsonNode task = new ObjectMapper().readTree(arguments[0]);
        switch (task.get("cmd").asText()) {
            case "write" -> write(task);
            case "dumps" -> dumps(task);
            default -> dump(task.get("bootstrap").asText(), task.get("topic").asText(), task.get("isolation").asText());
        }
    }
}
