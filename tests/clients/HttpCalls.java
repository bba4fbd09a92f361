// Calls the REST interface with the JDK's own client in its default configuration, which offers HTTP/2
// by `Upgrade: h2c` on every connection without TLS. One call after another; each must return 200.
//
//     URL=http://127.0.0.1:8080 USERNAME=admin PASSWORD=… java HttpCalls.java 1000
//
// Prints a line for each kind of failure, and at the end the numbers of calls and of failures.

import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Base64;
import java.util.Map;
import java.util.TreeMap;

public class HttpCalls {
    public static void main(String[] arguments) throws InterruptedException {
        Map<String, String> environment = System.getenv();
        int calls = Integer.parseInt(arguments[0]);
        String login = environment.get("USERNAME") + ":" + environment.get("PASSWORD");
        String basic = Base64.getEncoder().encodeToString(login.getBytes(StandardCharsets.UTF_8));
        HttpClient client = HttpClient.newHttpClient();
        Map<String, Integer> failures = new TreeMap<>();
        for (int call = 0; call < calls; call++) {
            String target = "/keep-alive?client-id=demo&interval=" + (30 + call % 1000);
            HttpRequest request = HttpRequest.newBuilder(URI.create(environment.get("URL") + target))
                .header("Authorization", "Basic " + basic)
                .timeout(Duration.ofSeconds(60))
                .POST(HttpRequest.BodyPublishers.noBody())
                .build();
            String outcome;
            try {
                HttpResponse<String> answer = client.send(request, HttpResponse.BodyHandlers.ofString());
                outcome = answer.statusCode() == 200 ? null : answer.statusCode() + " " + answer.body();
            } catch (IOException error) {
                outcome = error.toString();
            }
            if (outcome != null) {
                failures.merge(outcome, 1, Integer::sum);
            }
        }
        failures.forEach((outcome, count) -> System.out.println(count + " x " + outcome));
        int failed = failures.values().stream().mapToInt(Integer::intValue).sum();
        System.out.println(calls + " calls, " + failed + " failed");
        System.exit(failed == 0 ? 0 : 1);
    }
}
