-- The question at the end: who was late, by name, and was it worth it? A view joined with a table, computed and ordered.
SELECT c.name,
       d.landed,
       d.late,
       d.average_delay,
       d.worst
FROM delays_by_carrier d
JOIN carriers c ON c.carrier = d.carrier
WHERE d.landed >= 10
ORDER BY d.average_delay DESC, c.name
