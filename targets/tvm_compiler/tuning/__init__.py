"""The search for better schedules: candidates, measurements, and the database of the best."""
